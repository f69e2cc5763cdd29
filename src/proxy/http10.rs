//! Clients that speak HTTP/1.0 know neither chunks nor interim responses (RFC 9112 section 6.1, RFC 9110 section 15.2).
//! Their responses end with the connection, unless they have a length.

use std::any::Any;

use async_trait::async_trait;
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{Method, StatusCode, Version};
use pingora_core::modules::http::{HttpModule, HttpModuleBuilder, HttpModules, Module};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

/// Prepares the session of such a client.
pub(super) fn begin(session: &mut Session) {
    if session.req_header().version != Version::HTTP_10 {
        return;
    }
    session.req_header_mut().remove_header(&EXPECT);
    session.set_ignore_info_resp(true);
    let mut modules = HttpModules::new();
    modules.add_module(Box::new(Unchunked));
    session.downstream_modules_ctx = modules.build_ctx();
}

/// A response without a length ends its connection, which its head has to say.
pub(super) fn response(session: &mut Session, response: &ResponseHeader) {
    if session.req_header().version != Version::HTTP_10 || response.headers.contains_key(CONTENT_LENGTH) {
        return;
    }
    let bodiless = session.req_header().method == Method::HEAD
        || matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !bodiless {
        session.set_keepalive(None);
    }
}

/// Takes the chunked coding from responses. Pingora adds it to one from an h2 upstream only after the last filter of a
/// proxy, but before that of its modules.
struct Unchunked;

impl HttpModuleBuilder for Unchunked {
    fn init(&self) -> Module {
        Box::new(Self)
    }
}

#[async_trait]
impl HttpModule for Unchunked {
    async fn response_header_filter(&mut self, response: &mut ResponseHeader, _: bool) -> Result<()> {
        response.remove_header(&TRANSFER_ENCODING);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
