//! Who calls.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::config::{Claim, Name, TokenSource};

/// A caller that one way of knowing has vouched for. Cheap to clone: the claims are shared with the cache they came from.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Which `auth` knew the caller
    pub auth: Name,
    /// What it says about the caller, `sub` among it
    pub claims: Arc<Map<String, Value>>,
    /// What carried the token, to be removed from the request upstream; `None` when it is passed on
    pub carried_by: Option<TokenSource>,
}

impl Identity {
    /// The caller's own name: the `sub` claim.
    pub fn subject(&self) -> Option<&str> {
        self.claims.get("sub").and_then(Value::as_str)
    }

    /// The value of a claim.
    pub fn claim(&self, claim: &Claim) -> Option<&Value> {
        match claim {
            Claim::Member(name) => self.claims.get(name),
            Claim::Pointer(path) => {
                let (first, rest) = path.split_first()?;
                rest.iter().try_fold(self.claims.get(first)?, |value, token| match value {
                    Value::Object(members) => members.get(token),
                    Value::Array(items) => token.parse::<usize>().ok().and_then(|index| items.get(index)),
                    _ => None,
                })
            }
        }
    }

    /// A claim as text: strings as they are, lists joined by `,`, numbers and booleans as JSON. Objects and null have none.
    pub fn claim_text(&self, claim: &Claim) -> Option<Cow<'_, str>> {
        text(self.claim(claim)?)
    }
}

/// The text of a value; what [`Identity::claim_text`] says of a claim.
pub(super) fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(flag) => Some(Cow::Borrowed(if *flag { "true" } else { "false" })),
        Value::Array(items) => {
            let parts: Vec<_> = items.iter().filter_map(text).collect();
            Some(Cow::Owned(parts.join(",")))
        }
        Value::Object(_) | Value::Null => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity() -> Identity {
        let Value::Object(claims) = json!({
            "sub": "alice", "https://x/tier": "gold", "realm_access": { "roles": ["admin", "user"] }, "age": 7
        }) else {
            unreachable!("an object was written")
        };
        Identity { auth: "corporate".into(), claims: Arc::new(claims), carried_by: None }
    }

    #[test]
    fn a_member_name_is_literal_even_with_slashes_inside() {
        let claim = Claim::Member("https://x/tier".into());
        assert_eq!(identity().claim_text(&claim).as_deref(), Some("gold"));
    }

    #[test]
    fn a_pointer_walks_and_lists_are_joined() {
        let roles = Claim::Pointer(vec!["realm_access".into(), "roles".into()]);
        assert_eq!(identity().claim_text(&roles).as_deref(), Some("admin,user"));
        let second = Claim::Pointer(vec!["realm_access".into(), "roles".into(), "1".into()]);
        assert_eq!(identity().claim_text(&second).as_deref(), Some("user"));
    }

    #[test]
    fn an_object_has_no_text() {
        assert_eq!(identity().claim_text(&Claim::Member("realm_access".into())), None);
    }
}
