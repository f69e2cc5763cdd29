//! HAProxy.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::{CONNECTIONS, POOL, RATE};
use crate::compare::Failure;
use crate::compare::contender::Setup;
use crate::compare::ground::{Ground, Launch};
use crate::compare::token::{AUDIENCE, Algorithm, ISSUER, Key};

pub(in crate::compare) fn haproxy(
    ground: &Ground,
    setup: Setup,
    directory: &Path,
    addr: SocketAddr,
) -> Result<Launch, Failure> {
    let tls = if setup.tls {
        format!(" ssl crt {} alpn h2,http/1.1", ground.certificate.both.display())
    } else {
        String::new()
    };
    // It writes lines to a descriptor it is started with, here standard output: a file.
    let (global, log) = if setup.log {
        let format = r#"{"ts":"%trg","request_id":"%ID","client_ip":"%ci","listener":"%f","upstream":"%b","endpoint":"%s","method":"%HM","path":"%[capture.req.uri,json(utf8s)]","proto":"%HV","status":%ST,"bytes_in":%U,"bytes_out":%B,"duration_ms":%Ta,"first_byte_ms":%Tr,"user_agent":"%[capture.req.hdr(0),json(utf8s)]"}"#;
        let quoted = format.replace('"', "\\\"").replace(' ', "\\ ");
        let log = format!("  log global\n  log-format {quoted}\n  http-request capture req.hdr(user-agent) len 64\n");
        ("  log stdout format raw local0 info\n", log)
    } else {
        ("", String::new())
    };
    let token = match (setup.token, &ground.tokens) {
        (Some(algorithm), Some(tokens)) => token(algorithm, &tokens.key),
        _ => String::new(),
    };
    let limit = if setup.limit {
        format!(
            "  http-request track-sc0 src table addresses\n  \
             http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {RATE} }}\n"
        )
    } else {
        String::new()
    };
    // Splicing makes bodies cheaper and costs nothing elsewhere; larger buffers make most things dearer. With strict
    // limits it would want two descriptors for each connection that it might hold, and no case needs as many.
    let text = format!(
        "global\n  nbthread {threads}\n  maxconn {CONNECTIONS}\n  no strict-limits\n{global}\
         defaults\n  mode http\n  timeout connect 2s\n  timeout client 300s\n  timeout server 60s\n  timeout tunnel 300s\n  option forwardfor\n  option splice-response\n\
         frontend front\n  bind {addr} backlog 4096{tls}\n{log}{token}{limit}  \
         unique-id-format %{{+X}}o%ci:%cp_%ts_%rt\n  unique-id-header x-request-id\n  default_backend origin\n\
         backend origin\n  http-reuse always\n  server origin {origin} pool-max-conn {POOL}\n\
         backend users\n  stick-table type string len 64 size 100k expire 60s store http_req_rate(1s)\n\
         backend addresses\n  stick-table type ip size 100k expire 60s store http_req_rate(1s)\n",
        threads = setup.workers,
        origin = ground.origin,
    );
    let file = directory.join("haproxy.cfg");
    fs::write(&file, text)?;
    Ok(Launch { program: "haproxy".into(), arguments: vec!["-db".into(), "-f".into(), file.into()] })
}

/// What Tollgate checks of a token, as its documentation does it: the algorithm, who issued it for whom, until when, and
/// the signature; then a count for each user.
fn token(algorithm: Algorithm, key: &Key) -> String {
    let name = algorithm.name();
    let key = match key {
        Key::Public(file) => file.display().to_string(),
        Key::Secret(secret) => secret.clone(),
    };
    format!(
        "  http-request set-var(txn.bearer) http_auth_bearer\n  \
         http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')\n  \
         http-request set-var(txn.nbf) var(txn.bearer),jwt_payload_query('$.nbf','int')\n  \
         http-request set-var(txn.user) var(txn.bearer),jwt_payload_query('$.sub')\n  \
         http-request set-var(txn.now) date()\n  \
         http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_header_query('$.alg') -m str {name} }}\n  \
         http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.iss') -m str {ISSUER} }}\n  \
         http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.aud') -m str {AUDIENCE} }}\n  \
         http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int le 0 }}\n  \
         http-request deny deny_status 401 if {{ var(txn.nbf),sub(txn.now) -m int gt 0 }}\n  \
         http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(\"{name}\",\"{key}\") -m int 1 }}\n  \
         http-request track-sc0 var(txn.user) table users\n  \
         http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {RATE} }}\n  \
         http-request set-header x-auth-subject %[var(txn.user)]\n  \
         http-request del-header authorization\n"
    )
}
