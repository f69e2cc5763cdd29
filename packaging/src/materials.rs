//! The bill of materials: every crate that is in the binary, as CycloneDX 1.5 (<https://cyclonedx.org/docs/1.5/json/>).
//!
//! What depends on what is cargo's answer for one target; what only builds or tests is left out. Sums are those of the
//! lock file. There is no time and no random number in it: the same sources make the same bill.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

const ROOT: &str = "tollgate";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
    workspace_root: String,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// The bill of the gateway for `target`.
pub(crate) fn bill(target: &str) -> Result<String, Box<dyn Error>> {
    // Cargo names itself to what it runs.
    #[expect(clippy::disallowed_methods, reason = "a tool of the build, which has no configuration")]
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let answer = Command::new(cargo)
        .args(["metadata", "--locked", "--format-version", "1", "--filter-platform", target])
        .output()?;
    if !answer.status.success() {
        return Err(String::from_utf8_lossy(&answer.stderr).into_owned().into());
    }
    let metadata: Metadata = serde_json::from_slice(&answer.stdout)?;
    let lock: Lock = toml::from_str(&fs::read_to_string(format!("{}/Cargo.lock", metadata.workspace_root))?)?;
    let sums = lock.package.into_iter().filter_map(|it| Some(((it.name, it.version), it.checksum?))).collect();
    Ok(serde_json::to_string_pretty(&document(&metadata, &sums)?)? + "\n")
}

fn document(metadata: &Metadata, sums: &BTreeMap<(String, String), String>) -> Result<Value, Box<dyn Error>> {
    let packages: BTreeMap<_, _> = metadata.packages.iter().map(|package| (&*package.id, package)).collect();
    let root = metadata.packages.iter().find(|package| package.name == ROOT).ok_or("there is no package tollgate")?;
    let edges = edges(&metadata.resolve, &root.id);
    let components: Vec<_> =
        edges.keys().filter(|id| **id != root.id).map(|id| component(packages[id], "library", sums)).collect();
    let dependencies: Vec<_> = edges
        .iter()
        .map(|(id, on)| {
            let on: BTreeSet<_> = on.iter().map(|id| purl(packages[id])).collect();
            json!({ "ref": purl(packages[id]), "dependsOn": on })
        })
        .collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": component(root, "application", sums) },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// Everything that is linked into `root`, and what each of it needs.
fn edges<'a>(resolve: &'a Resolve, root: &'a str) -> BTreeMap<&'a str, Vec<&'a str>> {
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&*node.id, node)).collect();
    let mut edges = BTreeMap::new();
    let mut waiting = vec![root];
    while let Some(id) = waiting.pop() {
        if edges.contains_key(id) {
            continue;
        }
        let linked = nodes[id].deps.iter().filter(|it| it.dep_kinds.iter().any(|kind| kind.kind.is_none()));
        let linked: Vec<_> = linked.map(|dependency| &*dependency.pkg).collect();
        waiting.extend(&linked);
        edges.insert(id, linked);
    }
    edges
}

fn purl(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version.replace('+', "%2B"))
}

fn component(package: &Package, kind: &str, sums: &BTreeMap<(String, String), String>) -> Value {
    let mut component = json!({
        "type": kind,
        "bom-ref": purl(package),
        "name": package.name,
        "version": package.version,
        "purl": purl(package),
    });
    if let Some(license) = &package.license {
        // What cargo took in its first years for SPDX's "OR".
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    if let Some(sum) = sums.get(&(package.name.clone(), package.version.clone())) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    if let Some(repository) = &package.repository {
        component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_that_is_linked_is_listed_and_none_that_only_tests() {
        let bill: Value = serde_json::from_str(&bill("x86_64-unknown-linux-gnu").expect("made")).expect("JSON");
        let names: BTreeSet<_> =
            bill["components"].as_array().expect("a list").iter().filter_map(|it| it["name"].as_str()).collect();
        for linked in ["pingora-core", "rustls", "aws-lc-sys", "tokio"] {
            assert!(names.contains(linked), "{linked}");
        }
        for other in ["tollgate", "proptest", "tempfile", "tollgate-load", "clap_mangen", "cmake"] {
            assert!(!names.contains(other), "{other}");
        }
        assert!(bill["components"].as_array().expect("a list").iter().all(|it| it["hashes"][0]["content"].is_string()));
    }
}
