//! nginx, as a proxy and as the origin.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::{CONNECTIONS, POOL, RATE};
use crate::compare::Failure;
use crate::compare::contender::Setup;
use crate::compare::cores::pinned;
use crate::compare::ground::{Ground, Launch};
use crate::compare::process::Process;
use crate::machine;

/// The origin: answers from memory and, with larger bodies, from files.
pub(in crate::compare) fn origin(directory: &Path, cores: &[usize]) -> Result<Process, Failure> {
    let own = directory.join("origin");
    fs::create_dir_all(&own)?;
    fs::write(own.join("100k"), vec![b'.'; 100 << 10])?;
    fs::write(own.join("1m"), vec![b'.'; 1 << 20])?;
    let [addr] = machine::free_addresses()?;
    let server = format!(
        r#"server {{
            listen {addr} backlog=4096;
            access_log off;
            keepalive_timeout 1h;
            default_type text/plain;
            sendfile on;
            location / {{ return 200 "{small}"; }}
            location = /100k {{ root {root}; }}
            location = /1m {{ root {root}; }}
        }}"#,
        small = ".".repeat(200),
        root = own.display(),
    );
    let Launch { program, arguments } = launch(&own, &server, cores.len(), false)?;
    let mut command = pinned(cores, &program.to_string_lossy());
    command.args(arguments);
    Process::start("origin", addr, &own, command)
}

pub(in crate::compare) fn nginx(
    ground: &Ground,
    setup: Setup,
    directory: &Path,
    addr: SocketAddr,
) -> Result<Launch, Failure> {
    let log = if setup.log {
        format!("access_log {}/access.log json buffer=64k flush=1s;", directory.display())
    } else {
        "access_log off;".to_owned()
    };
    let (listen, tls) = if setup.tls {
        let certificate = &ground.certificate;
        // Tickets alone: a session cache besides costs it a tenth of a handshake.
        let tls = format!(
            "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets on;",
            certificate.certificate.display(),
            certificate.key.display(),
        );
        ("ssl http2", tls)
    } else {
        ("", String::new())
    };
    let connection = if setup.upgrade {
        "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;"
    } else {
        r#"proxy_set_header Connection "";"#
    };
    // It counts in milliseconds: without a burst two requests in one of them are one too many.
    let (zone, limit) = if setup.limit {
        let zone = format!("limit_req_zone $binary_remote_addr zone=per_address:10m rate={RATE}r/s;");
        (zone, format!("limit_req zone=per_address burst={RATE} nodelay; limit_req_status 429;"))
    } else {
        (String::new(), String::new())
    };
    // Large buffers, and no files for what does not fit into them: with its own settings a body of 1 MiB costs it three
    // times as much.
    let server = format!(
        r#"log_format json escape=json '{{"ts":"$time_iso8601","request_id":"$request_id","client_ip":"$remote_addr","method":"$request_method","scheme":"$scheme","host":"$host","path":"$uri","proto":"$server_protocol","status":$status,"bytes_in":$request_length,"bytes_out":$body_bytes_sent,"duration":$request_time,"upstream":"$upstream_addr","user_agent":"$http_user_agent"}}';
        map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
        {zone}
        upstream origin {{ server {origin}; keepalive {POOL}; keepalive_requests 1000000000; }}
        server {{
            listen {addr} {listen} backlog=4096;
            keepalive_timeout 300s;
            {tls}
            {log}
            {limit}
            location / {{
                proxy_pass http://origin;
                proxy_http_version 1.1;
                proxy_max_temp_file_size 0;
                proxy_buffers 8 64k;
                proxy_busy_buffers_size 128k;
                {connection}
                proxy_set_header Host $host;
                proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                proxy_set_header X-Forwarded-Proto $scheme;
                proxy_set_header X-Request-Id $request_id;
            }}
        }}"#,
        origin = ground.origin,
    );
    launch(directory, &server, setup.workers, ground.wrapper.is_some())
}

fn launch(directory: &Path, server: &str, workers: usize, in_one_process: bool) -> Result<Launch, Failure> {
    let path = directory.display();
    let processes =
        if in_one_process { "master_process off;".to_owned() } else { format!("worker_processes {workers};") };
    // Unpacked as root it would take another user, who may not read the files.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let text = format!(
        "daemon off; {processes} {user} pid {path}/nginx.pid; error_log {path}/error.log;\n\
         events {{ worker_connections {CONNECTIONS}; }}\n\
         http {{ client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/fastcgi;\n\
         uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;\n\
         keepalive_requests 1000000000;\n{server}\n}}\n"
    );
    let file = directory.join("nginx.conf");
    fs::write(&file, text)?;
    let arguments = vec!["-c".into(), file.into(), "-p".into(), directory.into()];
    Ok(Launch { program: "nginx".into(), arguments })
}
