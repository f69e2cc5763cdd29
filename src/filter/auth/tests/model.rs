//! Whatever is remembered, a route judges as if nothing were: the same as a model that remembers nothing.
//!
//! Three providers, two of them of one issuer; tokens of both issuers by several keys; keys that come and go; time that
//! goes on and back. The same few tokens are asked about again and again, so most answers come from what is remembered.

use proptest::prelude::*;

use super::*;
use crate::filter::auth::jwt::Pace;

const KEYS: usize = 3;
const PROVIDERS: usize = 3;
const ISSUERS: [&str; PROVIDERS] = [ISSUER, "https://elsewhere.example.com", ISSUER];
const NAMES: [&str; PROVIDERS] = ["a", "b", "c"];
const ROUTES: [&[usize]; 6] = [&[0], &[1], &[2], &[0, 1], &[0, 2], &[2, 1, 0]];
/// Seconds from now at which a token is asked about; all before now or within what the library believes is valid.
const TIMES: [i64; 5] = [-1000, 0, 1000, 5000, 9000];
/// `exp`, and `nbf` for every other token.
const LIFETIMES: [(i64, i64); 3] = [(500, -500), (4000, -5000), (8000, 0)];

/// One of the tokens there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Which {
    issuer: usize,
    key: usize,
    lifetime: usize,
    is_forged: bool,
}

#[derive(Clone, Debug)]
enum Step {
    /// A provider's keys are these from now on
    Rotate {
        provider: usize,
        keys: [bool; KEYS],
    },
    Ask {
        route: usize,
        token: Which,
        time: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rotate = (0..PROVIDERS, any::<[bool; KEYS]>())
        .prop_filter("a set has a key", |(_, keys)| keys.contains(&true))
        .prop_map(|(provider, keys)| Step::Rotate { provider, keys });
    let token = (0..2usize, 0..KEYS, 0..LIFETIMES.len(), prop::bool::weighted(0.1));
    let ask = (0..ROUTES.len(), token, 0..TIMES.len()).prop_map(|(route, (issuer, key, lifetime, is_forged), time)| {
        Step::Ask { route, token: Which { issuer, key, lifetime, is_forged }, time }
    });
    proptest::collection::vec(prop_oneof![1 => rotate, 6 => ask], 1..120)
}

fn keys() -> &'static [Signer; KEYS] {
    static KEYS_THERE_ARE: OnceLock<[Signer; KEYS]> = OnceLock::new();
    KEYS_THERE_ARE.get_or_init(|| std::array::from_fn(|_| Signer::ed25519()))
}

fn set(keys_there_are: [bool; KEYS]) -> String {
    let there = keys().iter().enumerate().filter(|(index, _)| keys_there_are[*index]);
    jwks(&there.map(|(index, key)| key.jwk(&json!({"kid": index.to_string()}))).collect::<Vec<_>>())
}

fn minted(which: Which, now: i64) -> String {
    let (exp, nbf) = LIFETIMES[which.lifetime];
    let claims = claims_with(&json!({
        "iss": ISSUERS[which.issuer], "sub": format!("{which:?}"), "exp": now + exp, "nbf": now + nbf,
    }));
    let header = Header { kid: Some(which.key.to_string()), ..header(Algorithm::EdDSA) };
    let token = keys()[which.key].sign(&header, &claims);
    if !which.is_forged {
        return token;
    }
    let (message, signature) = token.rsplit_once('.').expect("three segments");
    let mut signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    signature[9] ^= 1;
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn provider(index: usize) -> Arc<Authenticator> {
    // Nobody is ever asked for keys, so nobody waits for them either.
    let pace = Pace { patience: Duration::ZERO, ..Pace::USUAL };
    let keys = KeySource::JwksUrl(Uri::from_static("http://127.0.0.1:9/"));
    let spec = Jwt { issuer: ISSUERS[index].into(), ..spec(&[Algorithm::EdDSA], keys) };
    let built = Authenticator::with_pace(&NAMES[index].into(), &Spec::from(spec).auth(), pace);
    let built = Arc::new(built.expect("built"));
    built.rotate(&set([true; KEYS]));
    built
}

/// What is right, worked out anew: who calls by which provider, or why not.
fn expected(members: &[usize], sets: &[[bool; KEYS]; PROVIDERS], token: Which, time: i64) -> Result<usize, Reason> {
    let (exp, nbf) = LIFETIMES[token.lifetime];
    let verifies =
        |member: &&usize| ISSUERS[**member] == ISSUERS[token.issuer] && sets[**member][token.key] && !token.is_forged;
    let Some(member) = members.iter().find(verifies) else { return Err(Reason::InvalidToken) };
    let leeway = 30;
    if time >= exp + leeway {
        return Err(Reason::TokenExpired);
    }
    if time < nbf - leeway { Err(Reason::InvalidToken) } else { Ok(*member) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_answer_is_of_another_token_another_provider_a_rotated_key_or_another_time(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let now = seconds_from_now(0);
            let providers: [_; PROVIDERS] = std::array::from_fn(provider);
            let routes = ROUTES.map(|members| {
                let members: Vec<_> = members.iter().map(|member| Arc::clone(&providers[*member])).collect();
                route_of(&members, Require::default(), Mode::Enforce)
            });
            let mut sets = [[true; KEYS]; PROVIDERS];
            let mut tokens = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Rotate { provider, keys } => {
                        providers[provider].rotate(&set(keys));
                        sets[provider] = keys;
                    }
                    Step::Ask { route, token, time } => {
                        let text: &String = tokens.entry(token).or_insert_with(|| minted(token, now));
                        let wall = UNIX_EPOCH + Duration::from_secs(u64::try_from(now + TIMES[time]).expect("after 1970"));
                        let verdict = Call::bearer(text).judged_at(&routes[route], wall).await;
                        let verdict = verdict.map(|identity| {
                            let identity = identity.expect("nobody is anonymous here");
                            (identity.auth.to_string(), identity.subject().map(str::to_owned))
                        });
                        let expected = expected(ROUTES[route], &sets, token, TIMES[time]);
                        let expected = expected.map(|member| (NAMES[member].to_owned(), Some(format!("{token:?}"))));
                        prop_assert_eq!(verdict.map_err(|reply| reply.reason), expected, "{:?} at {}", token, TIMES[time]);
                    }
                }
            }
            Ok(())
        })?;
    }
}
