//! Programs that a comparison needs, and how to come by them.

use std::env;
use std::path::Path;

use super::case::{Case, Load};
use super::contender::Peer;

/// A program, and the package of Debian that brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tool {
    program: &'static str,
    package: &'static str,
}

const TASKSET: Tool = Tool { program: "taskset", package: "util-linux" };
const NGINX: Tool = Tool { program: "nginx", package: "nginx-light" };
const HAPROXY: Tool = Tool { program: "haproxy", package: "haproxy" };
const WRK: Tool = Tool { program: "wrk", package: "wrk" };
const H2LOAD: Tool = Tool { program: "h2load", package: "nghttp2-client" };
const VALGRIND: Tool = Tool { program: "callgrind_control", package: "valgrind" };

/// What the cases need and this machine lacks: each once.
pub(super) fn missing(cases: &[Case]) -> Vec<Tool> {
    let mut tools: Vec<_> = cases.iter().flat_map(|case| needed(*case)).filter(|tool| !tool.is_there()).collect();
    tools.sort_unstable();
    tools.dedup();
    tools
}

fn needed(case: Case) -> Vec<Tool> {
    // nginx is the origin as well.
    let mut tools = vec![TASKSET, NGINX];
    if case.contenders().iter().any(|contender| contender.peer == Peer::Haproxy) {
        tools.push(HAPROXY);
    }
    match case.load() {
        Load::Wrk { .. } | Load::List => tools.push(WRK),
        Load::Streams => tools.push(H2LOAD),
        Load::Callgrind => tools.push(VALGRIND),
        Load::Handshakes { .. } | Load::Echoes | Load::Idle => {}
    }
    tools
}

/// What to say of them.
pub(super) fn complaint(missing: &[Tool]) -> String {
    let programs: Vec<_> = missing.iter().map(|tool| tool.program).collect();
    let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    format!(
        "missing: {}. `scripts/setup.sh bench` installs what is missing on Debian (apt-get install {}); or choose cases \
         that can do without, with --case",
        programs.join(", "),
        packages.join(" "),
    )
}

impl Tool {
    fn is_there(self) -> bool {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).any(|directory| Path::new(&directory).join(self.program).is_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_needs_what_its_load_is_made_with() {
        assert!(needed(Case::H2).contains(&H2LOAD) && !needed(Case::H2).contains(&WRK));
        assert!(needed(Case::Kept).contains(&WRK));
        assert!(!needed(Case::Routes).contains(&HAPROXY));
    }

    #[test]
    fn who_lacks_something_is_told_what_to_do() {
        let text = complaint(&[H2LOAD, WRK]);
        assert!(text.contains("h2load, wrk") && text.contains("apt-get install nghttp2-client wrk"), "{text}");
    }
}
