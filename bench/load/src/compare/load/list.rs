//! Requests that are sent in turn: a token for each user, or a path for each route.

use std::fs;
use std::path::PathBuf;

use crate::compare::Failure;
use crate::compare::contender::Setup;
use crate::compare::ground::{Ground, NAME};

/// Neighbours in a configuration are no neighbours in time: a prime that divides no number of routes.
const STRIDE: usize = 7919;

/// Reads lines with a path and, behind a space, a token; all requests are made before the first is sent.
const SCRIPT: &str = r#"local requests, last = {}, 0

function init()
  for line in io.lines("@file@") do
    local path, token = line:match("^(%S+) ?(%S*)$")
    local headers = { Host = "@host@" }
    if token ~= "" then headers["Authorization"] = "Bearer " .. token end
    requests[#requests + 1] = wrk.format("GET", path, headers)
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end
"#;

/// The first segment of a route; all are of one length.
pub(in crate::compare) fn segment(route: usize) -> String {
    format!("/service-{route:05}")
}

/// Writes a script for wrk.
pub(super) fn script(ground: &Ground, setup: Setup) -> Result<PathBuf, Failure> {
    let file = ground.directory.join(format!("requests-{}", setup.routes));
    let mut lines = match &ground.tokens {
        Some(tokens) => tokens.all.iter().map(|token| format!("/orders/17 {token}")).collect(),
        None => paths(setup.routes),
    };
    lines.push(String::new());
    fs::write(&file, lines.join("\n"))?;
    let script = file.with_extension("lua");
    fs::write(&script, SCRIPT.replace("@file@", &file.to_string_lossy()).replace("@host@", NAME))?;
    Ok(script)
}

fn paths(routes: usize) -> Vec<String> {
    (0..routes).map(|index| format!("{}/orders/17", segment(index * STRIDE % routes))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_route_is_asked_for_once_in_a_turn() {
        for routes in [10, 1000, 10_000] {
            assert_eq!(paths(routes).into_iter().collect::<BTreeSet<_>>().len(), routes);
        }
    }

    #[test]
    fn neighbours_are_far_apart() {
        assert_eq!(paths(10_000)[..2], ["/service-00000/orders/17", "/service-07919/orders/17"]);
    }
}
