//! What a route asks of a caller who is known: scopes and claims.

use std::fmt;

use serde_json::Value;

use crate::config::{Claim, Problem, Require};
use crate::filter::Identity;
use crate::filter::identity::text;

/// `require`
#[derive(Debug)]
pub(super) struct Requirement {
    scopes: Vec<String>,
    any_scope: Vec<String>,
    claims: Vec<(Claim, Vec<String>)>,
    all_claims: Vec<(Claim, Vec<String>)>,
}

impl Requirement {
    /// # Errors
    /// A scope that a challenge could not name.
    pub(super) fn build(spec: &Require) -> Result<Self, Problem> {
        for (key, scopes) in [("require.scopes", &spec.scopes), ("require.any_scope", &spec.any_scope)] {
            if let Some(scope) = scopes.iter().find(|scope| !is_scope(scope)) {
                let message =
                    format!("{scope:?} is not a scope: write visible ASCII characters without space, \" and \\");
                return Err(Problem::new(key, message));
            }
        }
        let Require { scopes, any_scope, claims, all_claims } = spec.clone();
        Ok(Self { scopes, any_scope, claims, all_claims })
    }

    /// Whether the caller has all of it.
    pub(super) fn is_met_by(&self, identity: &Identity) -> bool {
        self.missing(identity).next().is_none()
    }

    /// What the caller does not have.
    pub(super) fn missing<'a>(&'a self, identity: &'a Identity) -> impl Iterator<Item = Missing<'a>> {
        let has = |scope: &String| scopes(identity).any(|held| held == scope);
        let all = self.scopes.iter().filter(move |scope| !has(scope)).map(|scope| Missing::Scope(scope));
        let lacks_any = !self.any_scope.is_empty() && !self.any_scope.iter().any(has);
        let any = lacks_any.then_some(Missing::AnyScope(&self.any_scope));
        let claims = self.claims.iter().filter(|(claim, values)| !has_one(identity.claim(claim), values));
        let claims = claims.map(|(claim, values)| Missing::Claim { claim, values });
        let all_claims = self.all_claims.iter().filter(|(claim, values)| {
            let claim = identity.claim(claim);
            !values.iter().all(|value| has_one(claim, std::slice::from_ref(value)))
        });
        let all_claims = all_claims.map(|(claim, values)| Missing::AllClaims { claim, values });
        all.chain(any).chain(claims).chain(all_claims)
    }

    /// Scopes that are enough, for the challenge (RFC 6750 section 3); empty when none are asked for.
    pub(super) fn sufficient_scope(&self) -> String {
        let scopes: Vec<_> = self.scopes.iter().chain(self.any_scope.first()).map(String::as_str).collect();
        scopes.join(" ")
    }
}

/// One thing that a caller does not have.
#[derive(Clone, Copy, Debug)]
pub(super) enum Missing<'a> {
    Scope(&'a str),
    /// Any of these scopes
    AnyScope(&'a [String]),
    /// Any of these values
    Claim {
        claim: &'a Claim,
        values: &'a [String],
    },
    /// All of these values
    AllClaims {
        claim: &'a Claim,
        values: &'a [String],
    },
}

impl fmt::Display for Missing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scope(scope) => write!(f, "the scope {scope}"),
            Self::AnyScope(scopes) => write!(f, "one of the scopes {}", scopes.join(", ")),
            Self::Claim { claim, values } => write!(f, "{claim} with one of {}", values.join(", ")),
            Self::AllClaims { claim, values } => write!(f, "{claim} with all of {}", values.join(", ")),
        }
    }
}

/// `scope-token` of RFC 6749 section 3.3.
fn is_scope(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

/// The caller's scopes: `scope` (RFC 8693 section 4.2), or `scp` where there is none; one text with spaces, or a list.
fn scopes(identity: &Identity) -> impl Iterator<Item = &str> {
    let claim = identity.claims.get("scope").or_else(|| identity.claims.get("scp"));
    let (text, list) = match claim {
        Some(Value::String(text)) => (text.as_str(), &[][..]),
        Some(Value::Array(items)) => ("", items.as_slice()),
        _ => ("", &[][..]),
    };
    text.split(' ').filter(|scope| !scope.is_empty()).chain(list.iter().filter_map(Value::as_str))
}

/// Whether the claim, or any element of it if it is a list, is one of the values.
fn has_one(claim: Option<&Value>, values: &[String]) -> bool {
    let one = |value: &Value| {
        !value.is_array() && text(value).is_some_and(|text| values.iter().any(|wanted| *wanted == text))
    };
    match claim {
        Some(Value::Array(items)) => items.iter().any(one),
        Some(value) => one(value),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn met(spec: &Require, claims: Value) -> bool {
        let Value::Object(claims) = claims else { unreachable!("an object was written") };
        let identity = Identity { auth: "corporate".into(), claims: Arc::new(claims), carried_by: None };
        Requirement::build(spec).expect("built").is_met_by(&identity)
    }

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn all_scopes_are_asked_for_and_found_in_a_text_or_a_list() {
        let spec = Require { scopes: list(&["a", "b"]), ..Require::default() };
        for claims in [
            json!({"scope": "b c a"}),
            json!({"scope": ["a", "b"]}),
            json!({"scp": "a  b"}),
            json!({"scp": ["b", "a"]}),
        ] {
            assert!(met(&spec, claims.clone()), "{claims}");
        }
        for claims in [
            json!({}),
            json!({"scope": "a"}),
            json!({"scope": "a,b"}),
            json!({"scope": "ab"}),
            json!({"scope": ["a b"]}),
            json!({"scope": "A B"}),
            json!({"scope": {"a": 1, "b": 1}}),
            json!({"scope": "a\tb"}),
            json!({"scope": "a", "scp": "b"}),
        ] {
            assert!(!met(&spec, claims.clone()), "{claims}");
        }
    }

    #[test]
    fn one_of_several_scopes_is_enough() {
        let spec = Require { any_scope: list(&["a", "b"]), ..Require::default() };
        assert!(met(&spec, json!({"scope": "x b"})));
        assert!(!met(&spec, json!({"scope": "x"})));
    }

    #[test]
    fn a_claim_equals_a_value_or_has_an_element_that_does() {
        let plan = Claim::Pointer(list(&["tenant", "plan"]));
        let spec = Require { claims: vec![(plan, list(&["gold", "7", "true"]))], ..Require::default() };
        for plan in [json!("gold"), json!(7), json!(true), json!(["tin", "gold"]), json!([7])] {
            assert!(met(&spec, json!({"tenant": {"plan": plan.clone()}})), "{plan}");
        }
        for plan in
            [json!("gol"), json!("gold,7"), json!(null), json!([["gold"]]), json!({"gold": 1}), json!([]), json!(7.5)]
        {
            assert!(!met(&spec, json!({"tenant": {"plan": plan.clone()}})), "{plan}");
        }
        assert!(!met(&spec, json!({"tenant": "gold"})));
    }

    #[test]
    fn a_list_can_be_asked_for_all_of_several_values() {
        let roles = Claim::Pointer(list(&["realm_access", "roles"]));
        let spec = Require { all_claims: vec![(roles, list(&["a", "b"]))], ..Require::default() };
        assert!(met(&spec, json!({"realm_access": {"roles": ["b", "c", "a"]}})));
        for roles in [json!(["a"]), json!("a"), json!("a,b"), json!([]), json!([["a", "b"]]), json!(null)] {
            assert!(!met(&spec, json!({"realm_access": {"roles": roles.clone()}})), "{roles}");
        }
    }

    #[test]
    fn nothing_asked_is_met_by_anybody() {
        assert!(met(&Require::default(), json!({})));
    }

    #[test]
    fn the_challenge_names_scopes_that_are_enough() {
        let spec = Require { scopes: list(&["a", "b"]), any_scope: list(&["c", "d"]), ..Require::default() };
        assert_eq!(Requirement::build(&spec).expect("built").sufficient_scope(), "a b c");
        assert!(met(&spec, json!({"scope": "a b c"})));
    }

    #[test]
    fn a_scope_that_a_challenge_could_not_name_is_a_problem() {
        for scope in ["", "a b", "a\"", "a\\b", "ä", "a\n"] {
            let spec = Require { any_scope: list(&[scope]), ..Require::default() };
            assert_eq!(Requirement::build(&spec).map(drop).expect_err(scope).path, "require.any_scope");
        }
    }
}
