//! Requests that wait in a line, whose clients may leave meanwhile.

use std::future::Future;
use std::pin::pin;

use futures_util::future::{Either, select};
use pingora_proxy::Session;

/// What `waiting` comes to, unless the client leaves before that. Our streams give nothing that stands behind a message,
/// so all there is to read is an error of the connection. While a body is on its way nobody looks: it would be lost.
pub(super) async fn unless_left<T>(session: &mut Session, waiting: impl Future<Output = T>) -> Option<T> {
    if !session.is_body_done() {
        return Some(waiting.await);
    }
    let left = session.as_downstream_mut().read_body_or_idle(true);
    match select(pin!(waiting), pin!(left)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}
