use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, Method};
use proptest::prelude::*;

use crate::config::{
    Action, Algorithm, Auth, AuthChoice, AuthKind, Claim, Config, EndpointAddress, KeySource, LimitKind, Mode,
    Protocol, Rewrite, RoutePath, Segment, Selector, Surroundings, TemplatePart, TokenSource, Variable,
};

/// Surroundings that a test makes up.
#[derive(Clone, Default)]
struct Made {
    variables: BTreeMap<&'static str, String>,
    files: BTreeMap<&'static str, Vec<u8>>,
}

impl Made {
    fn variable(mut self, name: &'static str, value: &str) -> Self {
        self.variables.insert(name, value.to_owned());
        self
    }

    fn file(mut self, path: &'static str, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path, content.into());
        self
    }

    /// Reads a configuration at `/etc/tollgate.toml`.
    fn read(&self, text: &str) -> Result<Config, String> {
        let path = Path::new("/etc/tollgate.toml");
        Config::read(text, path, self).map(|(config, _)| config).map_err(|error| error.to_string())
    }
}

impl Surroundings for Made {
    fn variable(&self, name: &str) -> Variable {
        self.variables.get(name).map_or(Variable::Unset, |value| Variable::Set(value.clone()))
    }

    fn file(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        let content = path.to_str().and_then(|path| self.files.get(path)).ok_or(io::ErrorKind::NotFound)?;
        if content.len() as u64 > most { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(content.clone()) }
    }

    fn matching(&self, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let pattern = glob::Pattern::new(pattern).map_err(io::Error::other)?;
        Ok(self.files.keys().filter(|path| pattern.matches(path)).map(PathBuf::from).collect())
    }

    fn cores(&self) -> usize {
        6
    }

    fn file_limit(&self) -> Option<u64> {
        Some(1000)
    }
}

/// The least that is valid, and then some.
fn with(more: &str) -> String {
    format!("[listeners.http]\naddress = \"0.0.0.0:8080\"\n[upstreams.app]\nendpoints = [\"127.0.0.1:3000\"]\n{more}\n")
}

fn read(more: &str) -> Config {
    Made::default().read(&with(more)).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(text: &str) -> String {
    Made::default().read(&with(text)).expect_err("it is wrong")
}

const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-hunter2";

const HS256: &str = "[auth.shared]\ntype = \"jwt\"\nissuer = \"https://id.example\"\naudience = [\"a\"]\n\
                     algorithms = [\"HS256\"]\n";

#[test]
fn what_is_not_written_has_its_default() {
    let config = read("[routes.app]\nauth = \"none\"\nupstream = \"app\"");
    assert_eq!(config.server.threads, 6);
    assert_eq!(config.server.max_connections, 400);
    assert_eq!(config.server.runtime_dir, Path::new("/run/tollgate"));
    assert_eq!(config.server.drain_delay, Duration::ZERO);
    assert_eq!(config.admin.address.to_string(), "127.0.0.1:9900");
    assert_eq!(config.listeners["http"].protocols, [Protocol::Http1]);
    let route = &config.routes["app"];
    assert_eq!((route.timeout, route.max_body), (Some(Duration::from_secs(60)), Some(10 << 20)));
    assert_eq!(route.auth, AuthChoice::Open);
    assert!(matches!(&route.path, RoutePath::Path(pattern) if pattern.below && pattern.segments.is_empty()));
    assert_eq!(config.upstreams["app"].retry.max_retries, 1);
    assert!(config.upstreams["app"].health.is_none());
}

#[test]
fn services_that_decide_have_defaults_too() {
    let config = read(
        "[auth.opaque]\ntype = \"introspection\"\nurl = \"https://id.example/introspect\"\nclient_id = \"gateway\"\n\
         client_secret = \"hunter2\"\n[auth.door]\ntype = \"forward\"\nurl = \"http://decider.internal/verify\"",
    );
    let AuthKind::Introspection(opaque) = &config.auth["opaque"].kind else { panic!("{:?}", config.auth) };
    let (two, minute) = (Duration::from_secs(2), Duration::from_secs(60));
    assert_eq!(
        (opaque.timeout, opaque.remember, &opaque.issuer, &*opaque.audience),
        (two, Some(minute), &None, &[][..])
    );
    assert_eq!(config.auth["opaque"].sources, [TokenSource::Bearer]);
    assert!(!format!("{opaque:?}").contains("hunter2"), "{opaque:?}");
    let AuthKind::Forward(door) = &config.auth["door"].kind else { panic!("{:?}", config.auth) };
    assert_eq!((door.timeout, door.claims.len()), (two, 0));
    assert_eq!(door.request_headers, ["authorization", "cookie"].map(HeaderName::from_static));
    let told = ["www-authenticate", "location", "set-cookie", "content-type", "cache-control"];
    assert_eq!(door.response_headers, told.map(HeaderName::from_static));
    assert!(config.auth["door"].sources.is_empty());
}

#[test]
fn the_runtime_directory_is_where_the_system_wants_it() {
    let text = with("");
    let of = |made: Made| made.read(&text).expect("valid").server.runtime_dir;
    let made = Made::default().variable("XDG_RUNTIME_DIR", "/run/user/1000");
    assert_eq!(of(made.clone()), Path::new("/run/user/1000/tollgate"));
    assert_eq!(of(made.variable("RUNTIME_DIRECTORY", "/run/a:/run/b")), Path::new("/run/a"));
    assert_eq!(of(Made::default().variable("XDG_RUNTIME_DIR", "")), Path::new("/run/tollgate"));
}

#[test]
fn defaults_are_for_routes_that_do_not_say() {
    let config = read(
        "[defaults]\nauth = \"none\"\nlimits = [\"all\"]\ntimeout = \"none\"\nmax_body = \"1KiB\"\n\
         response_headers = { remove = [\"server\"] }\n[limits.all]\nrate = \"1/s\"\nkey = []\n\
         [routes.one]\nupstream = \"app\"\n\
         [routes.two]\nupstream = \"app\"\nlimits = []\ntimeout = \"1s\"\nmax_body = \"none\"\nresponse_headers = {}",
    );
    let (one, two) = (&config.routes["one"], &config.routes["two"]);
    assert_eq!((one.timeout, one.max_body, one.limits.len()), (None, Some(1024), 1));
    assert_eq!(one.response_headers.remove, [HeaderName::from_static("server")]);
    assert_eq!((two.timeout, two.max_body, two.limits.len()), (Some(Duration::from_secs(1)), None, 0));
    assert!(two.response_headers.remove.is_empty());
}

#[test]
fn a_whole_route_is_read() {
    let config = read(&format!(
        "{HS256}secret = \"{SECRET}\"\n[limits.user]\nrate = \"10/m\"\nkey = [\"auth.subject\", \"claim./a/b\"]\n\
         mode = \"shadow\"\n\
         [routes.app]\nhosts = [\"API.example.com\", \"*.example.com\"]\npath = \"/users/{{id}}/*\"\nmethods = [\"GET\"]\n\
         match_headers = {{ X-Channel = \"mobile\" }}\nmatch_query = {{ preview = \"true\" }}\nlisteners = [\"http\"]\n\
         auth = \"shared\"\nrequire = {{ scopes = [\"read\"], claims = {{ \"/tenant/plan\" = [\"gold\"] }} }}\n\
         limits = [\"user\"]\nclients = {{ deny = [\"10.0.0.1\"] }}\nupstream = \"app\"\n\
         rewrite = {{ replace = \"/v2/{{id}}\" }}\nrequest_headers = {{ set = {{ x-user = \"{{claim.sub}}\" }} }}"
    ));
    let route = &config.routes["app"];
    assert_eq!(route.methods, [Method::GET, Method::HEAD]);
    assert_eq!(route.match_headers, [(HeaderName::from_static("x-channel"), "mobile".to_owned())]);
    let AuthChoice::AnyOf { names, require, .. } = &route.auth else { panic!("it is not open") };
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["shared"]);
    assert_eq!(require.claims[0].0, Claim::Pointer(vec!["tenant".into(), "plan".into()]));
    assert_eq!(route.action, Action::Upstream("app".into()));
    let Some(Rewrite::Replace(template)) = &route.rewrite else { panic!("the path is replaced") };
    assert_eq!(template.0, [TemplatePart::Text("/v2/".into()), TemplatePart::Parameter("id".into())]);
    let RoutePath::Path(path) = &route.path else { panic!("it is no regular expression") };
    assert_eq!(path.segments[1], Segment::Parameter("id".into()));
    let limit = &config.limits["user"];
    assert!(matches!(limit.kind, LimitKind::Rate { rate, burst } if burst == rate.count && burst.get() == 10));
    assert_eq!((limit.mode, &limit.key[0]), (Mode::Shadow, &Selector::AuthSubject));
    let Auth { kind: AuthKind::Jwt(jwt), sources, .. } = &config.auth["shared"] else { panic!("it is a jwt") };
    assert_eq!((&jwt.algorithms[..], &sources[..]), (&[Algorithm::HS256][..], &[TokenSource::Bearer][..]));
}

#[test]
fn variables_come_from_the_environment_and_are_never_told() {
    let text = with("[routes.app]\nauth = \"none\"\nupstream = \"${UPSTREAM}\"\nhosts = [\"${HOST:-a.example}\"]");
    let config = Made::default().variable("UPSTREAM", "app").read(&text).expect("valid");
    assert_eq!(config.routes["app"].action, Action::Upstream("app".into()));
    let error = Made::default().variable("UPSTREAM", SECRET).variable("HOST", SECRET).read(&text);
    assert!(error.is_err_and(|error| error.contains("no upstream has this name") && !error.contains(SECRET)));
    let places = with(&format!("[routes.app]\nauth = \"none\"\nupstream = \"app\"\nhosts = [\"{SECRET}:80\"]"));
    assert!(Made::default().read(&places).is_err_and(|error| error.contains(SECRET)), "this test can fail");
}

#[test]
fn files_are_beside_the_file_that_names_them() {
    let included = format!("{HS256}secret_file = \"jwt.secret\"");
    let text = format!("include = [\"conf.d/*.toml\"]\n{}", with(""));
    let made =
        Made::default().file("/etc/conf.d/auth.toml", included).file("/etc/conf.d/jwt.secret", format!("{SECRET}\n"));
    let config = made.read(&text).unwrap_or_else(|error| panic!("{error}"));
    let AuthKind::Jwt(jwt) = &config.auth["shared"].kind else { panic!("it is a jwt") };
    let KeySource::Secret(secret) = &jwt.keys else { panic!("it is a secret") };
    assert_eq!(secret.expose(), SECRET.as_bytes(), "one newline is the editor's");
    assert!(!format!("{config:?}").contains(SECRET));
    let changed = made.file("/etc/conf.d/jwt.secret", format!("{SECRET}\n\n")).read(&text).expect("valid");
    assert_ne!(config, changed, "only one newline is trimmed, and another content is another configuration");
}

#[test]
fn a_file_that_is_too_large_empty_or_no_text_is_refused() {
    let text = with(&format!("{HS256}secret_file = \"jwt.secret\""));
    for content in [vec![b'a'; 2 << 20], Vec::new(), b"\n".to_vec()] {
        assert!(Made::default().file("/etc/jwt.secret", content).read(&text).is_err());
    }
    let text = format!("include = [\"other.toml\"]\n{}", with(""));
    let error = Made::default().file("/etc/other.toml", b"a = 1\n# \xff".to_vec()).read(&text).expect_err("no text");
    assert!(error.contains("not UTF-8 text: line 2"), "{error}");
}

#[test]
fn a_file_that_two_patterns_match_is_read_once_and_conf_d_may_be_empty() {
    let text = format!("include = [\"a.toml\", \"*.toml\", \"conf.d/*.toml\"]\n{}", with(""));
    let made = Made::default().file("/etc/a.toml", "[log]\nlevel = \"warn\"");
    assert_eq!(made.read(&text).expect("valid").log.level, "warn");
}

#[test]
fn a_directory_with_a_bracket_is_no_pattern() {
    let path = Path::new("/etc/[a]/tollgate.toml");
    let made = Made::default().file("/etc/[a]/b.toml", "[log]\nlevel = \"warn\"");
    let text = format!("include = [\"*.toml\"]\n{}", with(""));
    let (config, _) = Config::read(&text, path, &made).expect("valid");
    assert_eq!(config.log.level, "warn");
}

#[test]
fn the_name_of_a_certificate_is_that_of_the_endpoints() {
    let config = read("[upstreams.tls]\nendpoints = [\"Orders.internal:443\", \"orders.internal:8443\"]\ntls = {}");
    let upstream = &config.upstreams["tls"];
    assert_eq!(upstream.tls.as_ref().map(|tls| tls.server_name.as_str()), Some("orders.internal"));
    let name = EndpointAddress::Name { host: "orders.internal".into(), port: 443 };
    assert_eq!(upstream.endpoints[0].address, name);
    assert!(
        refusal("[upstreams.tls]\nendpoints = [\"a:443\", \"b:443\"]\ntls = {}").contains("\"server_name\" is missing")
    );
}

#[test]
fn a_problem_met_later_is_shown_in_its_place() {
    let text = with("[routes.app]\nauth = \"none\"\npath = \"/a\"\nupstream = \"app\"");
    let (_, places) = Config::read(&text, Path::new("/etc/tollgate.toml"), &Made::default()).expect("valid");
    let problem = |path: &str| crate::config::Problem::new(path, "it is so");
    let error =
        places.locate(vec![problem("routes.app.path"), problem("upstreams.app.tls.ca_file"), problem("nowhere")]);
    let found: Vec<_> = error
        .problems
        .iter()
        .map(|problem| problem.location.as_ref().map(|at| (at.line, at.column, at.width)))
        .collect();
    assert_eq!(found, [Some((3, 1, 15)), Some((7, 8, 4)), None]);
}

/// Files with everything in them, and a secret that must not be told.
fn samples() -> Vec<String> {
    let shipped = [
        include_str!("../../../conf/tollgate.toml"),
        include_str!("../../../conf/examples/jwt.toml"),
        include_str!("../../../conf/examples/limits.toml"),
        include_str!("../../../conf/examples/redirects.toml"),
    ];
    let secrets = [
        format!("secret = \"{SECRET}\""),
        format!("secret = '''{SECRET}'''"),
        format!("secret = \"\"\"\n{SECRET}\"\"\" # {SECRET}"),
        format!("token = \"{SECRET}\""),
    ];
    let secret = secrets.iter().map(|secret| with(&format!("{HS256}{secret}\nleeway = \"5s\"")));
    shipped.map(str::to_owned).into_iter().chain(secret).collect()
}

/// One change to a text: the kind of slip that fingers make.
#[derive(Clone, Debug)]
enum Slip {
    Delete,
    Double,
    Insert(char),
    DeleteLine,
}

fn slip(text: &mut String, at: usize, slip: &Slip) {
    let indexes: Vec<usize> = text.char_indices().map(|(index, _)| index).collect();
    let Some(&index) = indexes.get(at % indexes.len().max(1)) else {
        return;
    };
    match slip {
        Slip::Delete => drop(text.remove(index)),
        Slip::Double => {
            let character = text[index..].chars().next().expect("an index of a character");
            text.insert(index, character);
        }
        Slip::Insert(character) => text.insert(index, *character),
        Slip::DeleteLine => {
            let start = text[..index].rfind('\n').map_or(0, |newline| newline + 1);
            let end = text[index..].find('\n').map_or(text.len(), |newline| index + newline + 1);
            text.replace_range(start..end, "");
        }
    }
}

fn any_slip() -> impl Strategy<Value = Slip> {
    // No "=": typed into a secret whose own key is gone, it makes a key of it, and keys are shown.
    let characters =
        prop::sample::select(vec!['"', '\'', '[', ']', '{', '}', ',', '.', '\\', '#', '$', '\n', '\u{e4}', '0']);
    prop_oneof![Just(Slip::Delete), Just(Slip::Double), characters.prop_map(Slip::Insert), Just(Slip::DeleteLine)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_read_or_refused_in_some_place(text in "([a-z\\[\\]{}=\"'.,# \n0-9$\u{e4}]|auth|routes|listeners|\"\"\"){0,60}") {
        if let Err(error) = Config::read(&text, Path::new("a.toml"), &Made::default()) {
            prop_assert!(!error.problems.is_empty());
            let places: Vec<_> = error.problems.iter().filter_map(|problem| problem.location.as_ref()).collect();
            prop_assert!(places.is_sorted_by_key(|at| (at.line, at.column)));
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn slips_are_read_or_refused_and_tell_no_secret(
        sample in prop::sample::select(samples()),
        slips in prop::collection::vec((any::<usize>(), any_slip()), 1..5),
    ) {
        let mut text = sample;
        for (at, kind) in &slips {
            slip(&mut text, *at, kind);
        }
        if let Err(error) = Made::default().read(&text) {
            prop_assert!(!error.contains("hunter2-hunter2"), "{error}");
        }
    }
}
