//! A file of endpoints: `endpoints = [...]` as in `[upstreams.NAME]`, in TOML or, by its name, in JSON.
//!
//! Such a file is written by programs and read while the process runs: no variables, no includes.

use std::path::Path;

use super::node::Node;
use super::section::root;
use super::source::Source;
use super::{Context, file, upstream};
use crate::config::{Endpoint, EndpointAddress, EndpointsFile, Problem, System};

/// The file that an `endpoints_file` names.
pub(super) fn endpoints_file(node: &Node<'_>) -> Option<EndpointsFile> {
    let (path, text) = file::text(node, EndpointsFile::MAX_FILE)?;
    match read(&text, &path) {
        Ok(file) => Some(file),
        Err(problems) => {
            node.ctx.report.add_located(problems);
            None
        }
    }
}

/// Reads the text of a file of endpoints.
///
/// # Errors
/// All problems, by place.
pub(in crate::config) fn read(text: &str, path: &Path) -> Result<EndpointsFile, Vec<Problem>> {
    if path.extension().is_some_and(|extension| extension == "json") {
        return json(text, path);
    }
    let ctx = Context { is_verbatim: true, ..Context::new(&System) };
    let source = Source::new(0, path, text);
    let document = source.parse(&ctx.report);
    let endpoints = document.as_ref().and_then(|document| {
        let mut table = root(&ctx, &source, document);
        let why = "where requests go, [\"10.0.0.11:8080\"]";
        let endpoints = table.required("endpoints", why, addresses);
        table.finish(&[]);
        endpoints
    });
    match endpoints {
        Some(endpoints) if ctx.report.is_empty() => Ok(EndpointsFile { path: path.to_owned(), endpoints }),
        _ => Err(ctx.report.into_problems(&[&source])),
    }
}

/// Whoever writes the file has resolved the names.
fn addresses(node: &Node<'_>) -> Option<Vec<Endpoint>> {
    let endpoints = upstream::endpoints(node)?;
    let name = endpoints
        .iter()
        .map(|endpoint| &endpoint.address)
        .find(|address| matches!(address, EndpointAddress::Name { .. } | EndpointAddress::Service { .. }));
    if let Some(name) = name {
        node.problem(format!(
            "\"{name}\" is a name: such a file lists addresses and sockets, names belong in \"endpoints\""
        ));
        return None;
    }
    Some(endpoints)
}

/// The same as JSON: one reader for both, so problems are named by their path alone.
fn json(text: &str, path: &Path) -> Result<EndpointsFile, Vec<Problem>> {
    let whole = |message: String| vec![Problem::new(path.display().to_string(), message)];
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| whole(format!("no JSON: {error}")))?;
    let text = toml::to_string(&value).map_err(|error| whole(format!("it does not hold endpoints: {error}")))?;
    read(&text, &path.with_extension("toml")).map(|file| EndpointsFile { path: path.to_owned(), ..file }).map_err(
        |problems| {
            let named =
                |problem: Problem| Problem::new(format!("{}: {}", path.display(), problem.path), problem.message);
            problems.into_iter().map(named).collect()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str, name: &str) -> Result<Vec<String>, Vec<String>> {
        match read(text, Path::new(name)) {
            Ok(file) => Ok(file.endpoints.iter().map(|one| format!("{} x{}", one.address, one.weight)).collect()),
            Err(problems) => Err(problems.iter().map(|one| format!("{}: {}", one.path, one.message)).collect()),
        }
    }

    #[test]
    fn toml_and_json_say_the_same() {
        let expected = Ok(vec!["10.0.0.1:80 x1".to_owned(), "unix:/run/orders.sock x3".to_owned()]);
        let toml = "endpoints = [\"10.0.0.1:80\", { address = \"unix:/run/orders.sock\", weight = 3 }]";
        let json = r#"{"endpoints": ["10.0.0.1:80", {"address": "unix:/run/orders.sock", "weight": 3}]}"#;
        assert_eq!(listed(toml, "list.toml"), expected);
        assert_eq!(listed(json, "list.json"), expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, name) in [
            ("", "list.toml"),
            ("endpoints = []", "list.toml"),
            ("endpoints = [\"${HOME}:80\"]", "list.toml"),
            ("endpoints = [\"10.0.0.1:80\"]\nmore = 1", "list.toml"),
            ("", "list.json"),
            ("[\"10.0.0.1:80\"]", "list.json"),
            (r#"{"endpoints": []}"#, "list.json"),
            (r#"{"endpoints": [null]}"#, "list.json"),
            (r#"{"endpoints": ["orders:80"]}"#, "list.json"),
            (r#"{"endpoints": ["10.0.0.1"]}"#, "list.json"),
            (r#"{"endpoints": ["10.0.0.1:80", "10.0.0.1:80"]}"#, "list.json"),
            (r#"{"endpoints": [{"address": "10.0.0.1:80", "wait": 3}]}"#, "list.json"),
        ] {
            let problems = listed(text, name).expect_err(text);
            assert!(!problems.is_empty(), "{text}");
        }
        let problems = listed(r#"{"endpoints": ["10.0.0.1"]}"#, "list.json").expect_err("no port");
        assert!(problems[0].starts_with("list.json: endpoints[0]: the port is missing"), "{problems:?}");
    }
}
