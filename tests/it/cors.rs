//! Browsers: what a preflight is told, and what the pages of which origin may read.

use crate::support::{Origin, Request, Tollgate};

const APP: &str = "https://app.example";

fn preflight(tollgate: &Tollgate, path: &str, origin: &str, method: &str) -> Request {
    tollgate
        .request("OPTIONS", path)
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "authorization, x-trace")
}

/// `/orders` takes GET and PUT of callers with a token; `/open` lets the upstream speak for itself.
fn gateway(origin: &Origin) -> Tollgate {
    Tollgate::with(&format!(
        "[auth.corporate]\ntype = \"jwt\"\nissuer = \"https://id.test\"\naudience = [\"a\"]\nalgorithms = [\"HS256\"]\n\
         secret = \"a secret of at least thirty-two bytes\"\n\
         [upstreams.main]\nendpoints = [\"{}\"]\n\
         [routes.orders]\npath = \"/orders\"\nmethods = [\"GET\", \"PUT\"]\nauth = \"corporate\"\nupstream = \"main\"\n\
         response_headers = {{ set = {{ x-route = \"orders\" }} }}\n\
         cors = {{ origins = [\"{APP}\"], origins_regex = [\"https://[a-z0-9-]+\\\\.preview\\\\.example\"], \
         headers = [\"authorization\", \"x-trace\"], expose = [\"x-total\"], credentials = true, max_age = \"10m\" }}\n\
         [routes.open]\npath = \"/open\"\nmethods = [\"POST\"]\nauth = \"none\"\nupstream = \"main\"\n",
        origin.addr()
    ))
}

#[test]
fn a_preflight_is_answered_before_anybody_is_asked_who_they_are() {
    let origin = Origin::replying("secret");
    let tollgate = gateway(&origin);
    for allowed in [APP, "https://pr-7.preview.example"] {
        let response = preflight(&tollgate, "/orders", allowed, "PUT").send().expect(204);
        for (name, value) in [
            ("access-control-allow-origin", allowed),
            ("access-control-allow-methods", "GET, PUT, HEAD"),
            ("access-control-allow-headers", "authorization, x-trace"),
            ("access-control-allow-credentials", "true"),
            ("access-control-max-age", "600"),
            ("vary", "Origin"),
            ("x-route", "orders"),
        ] {
            assert_eq!(response.header(name), Some(value), "{name}");
        }
        assert_eq!(response.header("content-length"), None);
        assert_eq!(tollgate.logged(&response)["reason"], "preflight");
    }
    let response = preflight(&tollgate, "/orders", "https://evil.test", "PUT").send().expect(403);
    assert_eq!(response.header("access-control-allow-origin"), None);
    assert_eq!(tollgate.logged(&response)["reason"], "cors_denied");
    assert_eq!(origin.hits(), 0);
}

#[test]
fn a_refusal_can_be_read_by_the_page_that_caused_it() {
    let origin = Origin::replying("secret");
    let tollgate = gateway(&origin);
    let response = tollgate.get("/orders").header("origin", APP).send().expect(401);
    assert_eq!(response.header("access-control-allow-origin"), Some(APP));
    assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(response.header("access-control-expose-headers"), Some("x-total"));
    let response = tollgate.get("/orders").header("origin", "https://evil.test").send().expect(401);
    assert_eq!(response.header("access-control-allow-origin"), None);
    assert_eq!(response.header("vary"), Some("Origin"));
    // Asking with another method's name does not make a request a preflight.
    let disguised = tollgate.get("/orders").header("origin", APP).header("access-control-request-method", "GET");
    disguised.send().expect(401);
    let without_origin = tollgate.request("OPTIONS", "/orders").header("access-control-request-method", "GET");
    without_origin.send().expect(405);
    assert_eq!(origin.hits(), 0);
}

#[test]
fn a_preflight_goes_to_the_route_that_would_take_what_it_asks_about() {
    let origin = Origin::scripted(|_, connection| {
        connection.reply(200, &[("access-control-allow-origin", "https://upstream.example")], "");
    });
    let tollgate = gateway(&origin);
    let response = preflight(&tollgate, "/open", APP, "POST").send().expect(200);
    assert_eq!(response.header("access-control-allow-origin"), Some("https://upstream.example"), "its own word");
    assert_eq!(origin.request().method, "OPTIONS");
    preflight(&tollgate, "/open", APP, "DELETE").send().expect(405);
    preflight(&tollgate, "/orders", APP, "DELETE").send().expect(405);
    assert_eq!(origin.hits(), 1);
}
