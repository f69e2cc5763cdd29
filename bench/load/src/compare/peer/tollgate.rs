//! Tollgate.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::{CONNECTIONS, RATE};
use crate::compare::Failure;
use crate::compare::contender::Setup;
use crate::compare::ground::{Ground, Launch};
use crate::compare::load;
use crate::compare::token::{AUDIENCE, ISSUER, Key, SCOPE, Tokens};

pub(in crate::compare) fn tollgate(
    ground: &Ground,
    setup: Setup,
    directory: &Path,
    addr: SocketAddr,
    admin: SocketAddr,
) -> Result<Launch, Failure> {
    let file = directory.join("tollgate.toml");
    fs::write(&file, configuration(ground, setup, directory, addr, admin))?;
    let program = ground.programs.tollgate.clone().into();
    Ok(Launch { program, arguments: vec!["run".into(), "-c".into(), file.into()] })
}

fn configuration(ground: &Ground, setup: Setup, directory: &Path, addr: SocketAddr, admin: SocketAddr) -> String {
    let path = directory.display();
    let log = if setup.log { format!("output = \"file:{path}/access.log\"") } else { "format = \"off\"".to_owned() };
    let mut text = format!(
        "version = 1\n\
         [server]\nthreads = {workers}\nruntime_dir = \"{path}/run\"\nmax_connections = {CONNECTIONS}\n\
         [admin]\naddress = \"{admin}\"\n\
         [log.access]\n{log}\n\
         [listeners.front]\naddress = \"{addr}\"\nkeepalive_timeout = \"5m\"\n",
        workers = setup.workers,
    );
    if setup.tls {
        let certificate = &ground.certificate;
        text += &format!(
            "[listeners.front.tls]\ncertificates = [{{ cert_file = \"{}\", key_file = \"{}\" }}]\n",
            certificate.certificate.display(),
            certificate.key.display(),
        );
    }
    text += &format!("[upstreams.origin]\nendpoints = [\"{}\"]\n", ground.origin);
    let mut policies = "auth = \"none\"\n".to_owned();
    if let (Some(algorithm), Some(tokens)) = (setup.token, &ground.tokens) {
        text += &users(algorithm.name(), tokens);
        policies = "auth = \"users\"\nlimits = [\"per_user\"]\n".to_owned();
    }
    if setup.limit || setup.policies {
        text += &format!("[limits.per_address]\nrate = \"{RATE}/s\"\nkey = [\"client.address\"]\n");
    }
    if setup.limit {
        policies += "limits = [\"per_address\"]\n";
    }
    if setup.policies {
        policies = format!(
            "auth = \"users\"\n\
             limits = [\"per_address\", \"per_user\"]\n\
             require = {{ scopes = [\"{SCOPE}\"], claims = {{ \"/tenant/plan\" = [\"gold\", \"silver\"] }} }}\n\
             clients = {{ allow = [\"127.0.0.0/8\", \"10.0.0.0/8\"], deny = [\"10.6.6.0/24\"] }}\n\
             request_headers = {{ set = {{ x-gateway = \"tollgate\" }}, remove = [\"x-debug\"] }}\n\
             response_headers = {{ set = {{ strict-transport-security = \"max-age=63072000\", \
             x-content-type-options = \"nosniff\" }}, remove = [\"server\"] }}\n\
             timeout = \"30s\"\nmax_body = \"1MiB\"\n"
        );
    }
    if setup.routes == 1 {
        text += &format!("[routes.all]\nupstream = \"origin\"\n{policies}");
    }
    for route in (0..setup.routes).filter(|_| setup.routes > 1) {
        let path = load::segment(route);
        // Writing to memory cannot fail.
        let _ = write!(text, "[routes.route_{route}]\npath = \"{path}/*\"\nupstream = \"origin\"\n{policies}");
    }
    text
}

/// How callers are known and limited.
fn users(algorithm: &str, tokens: &Tokens) -> String {
    let key = match &tokens.key {
        Key::Public(file) => format!("public_key_file = \"{}\"", file.display()),
        Key::Secret(secret) => format!("secret = \"{secret}\""),
    };
    format!(
        "[auth.users]\ntype = \"jwt\"\nissuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]\nalgorithms = [\"{algorithm}\"]\n\
         {key}\nidentity_headers = {{ x-auth-subject = \"sub\" }}\n\
         [limits.per_user]\nrate = \"{RATE}/s\"\nkey = [\"auth.subject\"]\n"
    )
}
