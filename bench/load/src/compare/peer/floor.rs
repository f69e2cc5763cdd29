//! The least a proxy on the same runtime costs.

use std::net::SocketAddr;

use crate::compare::contender::Setup;
use crate::compare::ground::{Ground, Launch};

pub(in crate::compare) fn floor(ground: &Ground, setup: Setup, addr: SocketAddr) -> Launch {
    let mut arguments = vec!["--listen".into(), addr.to_string().into()];
    arguments.extend(["--origin".into(), ground.origin.to_string().into()]);
    arguments.extend(["--threads".into(), setup.workers.to_string().into()]);
    if setup.tls {
        let certificate = &ground.certificate;
        arguments.extend(["--certificate".into(), certificate.certificate.clone().into()]);
        arguments.extend(["--key".into(), certificate.key.clone().into()]);
    }
    Launch { program: ground.programs.floor.clone().into(), arguments }
}
