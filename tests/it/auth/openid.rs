//! With a provider that is nobody's of ours, and the example that is shipped for it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::{INVALID, Over, refused};
use crate::support::oidc::Provider;
use crate::support::{Origin, Tollgate, wait};

/// `conf/examples/openid.toml`, for another provider and another upstream.
fn example(provider: &Provider, origin: &Origin) -> String {
    let mut text = include_str!("../../../conf/examples/openid.toml").to_owned();
    for (old, new) in [
        ("https://id.example.com/realms/shop\"\n", format!("{}\"\n", provider.issuer())),
        ("https://orders.example.com", provider.resource().to_owned()),
        ("127.0.0.1:3000", origin.addr().to_string()),
        ("address = \"0.0.0.0:8080\"\n", String::new()),
        // One client asks here as fast as it can.
        ("100/s", "100000/s".to_owned()),
    ] {
        assert_eq!(text.matches(old).count(), 1, "{old}");
        text = text.replace(old, &new);
    }
    text
}

#[test]
fn a_real_provider_is_discovered_and_followed_while_its_keys_turn() {
    let Some(mut provider) = Provider::start() else { return };
    let origin = Origin::replying("orders");
    let tollgate = Tollgate::with(&example(&provider, &origin));
    let get = |token: &str| tollgate.get("/orders/1").bearer(token).send();

    let first = provider.token("orders.read");
    get(&first).expect(200);
    let request = origin.request();
    assert_eq!((request.header("x-auth-subject"), request.header("x-auth-client")), (Some("machine"), Some("machine")));
    let response = tollgate.post("/orders/1", "x").bearer(&first).send();
    let challenge = "Bearer realm=\"tollgate\", error=\"insufficient_scope\", scope=\"orders.write\"";
    refused(&response, 403, "insufficient_scope", Some(challenge));
    tollgate.post("/orders/1", "x").bearer(&provider.token("orders.read%20orders.write")).send().expect(200);

    // A key turns while the old token is at work.
    let (done, passed) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                get(&first).expect(200);
                passed.fetch_add(1, Ordering::SeqCst);
            }
        });
        let over = Over(&done);
        provider.turn();
        let second = provider.token("orders.read");
        // Perhaps not at once: within ten seconds of the last time nobody is asked again.
        wait::until("the new key to be known", || get(&second).status() == 200);
        let so_far = passed.load(Ordering::SeqCst);
        wait::until("the old token to go on", || passed.load(Ordering::SeqCst) > so_far + 10);
        drop(over);

        // What the provider does not vouch for any more, nobody does.
        provider.turn();
        provider.forget();
        let third = provider.token("orders.read");
        wait::until("the newest key to be known", || get(&third).status() == 200);
        for gone in [&first, &second] {
            refused(&get(gone), 401, "invalid_token", Some(INVALID));
        }
    });
}
