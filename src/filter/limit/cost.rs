//! What one request takes.
//!
//! No client chooses it: of a header only what a trusted proxy says arrives here, as others' are removed with whatever
//! else only such a proxy may say. What it says must be a whole number from 1; all else (two values, say, of a proxy
//! that adds to what its client sent instead of replacing it) costs all there is, and so does what costs more.

use std::num::NonZeroU32;

use http::{HeaderMap, Method};

use crate::config::Cost;
use crate::http::Request;

/// The cost of a request, `most` at most.
pub(super) fn of(cost: &Cost, request: &Request<'_>, most: NonZeroU32) -> NonZeroU32 {
    match cost {
        Cost::One => NonZeroU32::MIN,
        Cost::Method(costs) => by_method(costs, request.method),
        Cost::Header(name) => said(request.headers, name, most),
    }
}

/// What answers GET answers HEAD as well, with as much work.
fn by_method(costs: &[(Method, NonZeroU32)], method: &Method) -> NonZeroU32 {
    let named = |method: &Method| costs.iter().find(|(named, _)| named == method).map(|(_, cost)| *cost);
    let asked = if *method == Method::HEAD { named(method).or_else(|| named(&Method::GET)) } else { named(method) };
    asked.unwrap_or(NonZeroU32::MIN)
}

fn said(headers: &HeaderMap, name: &http::HeaderName, most: NonZeroU32) -> NonZeroU32 {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    let Some(first) = first else { return NonZeroU32::MIN };
    let digits = first.as_bytes();
    let is_number = second.is_none() && (1..=10).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let cost = if is_number { first.to_str().ok().and_then(|text| text.parse().ok()) } else { None };
    cost.map_or(most, |cost: NonZeroU32| cost.min(most))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).expect("not zero")
    }

    #[test]
    fn a_method_costs_what_is_written_and_head_what_get_does() {
        let costs = [(Method::GET, number(3)), (Method::POST, number(5))];
        let asked = [Method::GET, Method::HEAD, Method::POST, Method::PUT];
        assert_eq!(asked.map(|method| by_method(&costs, &method).get()), [3, 3, 5, 1]);
        let costs = [(Method::GET, number(3)), (Method::HEAD, number(2))];
        assert_eq!(by_method(&costs, &Method::HEAD).get(), 2);
    }

    #[test]
    fn what_is_no_cost_costs_everything() {
        let name = http::HeaderName::from_static("x-cost");
        let cost = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(&name, value.parse().expect("a value"));
            }
            said(&headers, &name, number(10)).get()
        };
        assert_eq!([cost(&[]), cost(&["1"]), cost(&["7"]), cost(&["10"]), cost(&["007"])], [1, 1, 7, 10, 7]);
        for wrong in [&["0"][..], &["11"], &["-1"], &["+1"], &["1.5"], &["1, 9"], &["1", "1"], &[""], &["99999999999"]]
        {
            assert_eq!(cost(wrong), 10, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_header_says_costs_something_and_never_more_than_there_is(
            values in proptest::collection::vec("[ -~]{0,12}|[0-9]{1,12}", 0..3), most in 1u32..,
        ) {
            let name = http::HeaderName::from_static("x-cost");
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(&name, value.parse().expect("a value"));
            }
            let cost = said(&headers, &name, number(most)).get();
            let expected = match values.as_slice() {
                [] => 1,
                [one] if one.len() <= 10 && one.bytes().all(|byte| byte.is_ascii_digit()) => {
                    one.parse().map_or(most, |cost: u32| if cost == 0 { most } else { cost.min(most) })
                }
                _ => most,
            };
            prop_assert_eq!(cost, expected);
        }
    }
}
