//! A JSON object written field by field, without a tree, a formatter or an allocation: one is written for each request.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

/// An object that is being written; it is whole when [`Self::end`] was called.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    /// Appends to `out`.
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// A field whose value `write` appends: what it appends must be JSON. `name` must need no escapes.
    pub(super) fn field(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        write(self.out);
    }

    /// Any text.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.field(name, |out| string(out, value));
    }

    /// Any text, if there is one.
    pub(super) fn optional(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// A whole number.
    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.field(name, |out| number(out, value));
    }

    /// Milliseconds, to the microsecond.
    pub(super) fn milliseconds(&mut self, name: &str, value: Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.field(name, |out| {
            number(out, micros / 1000);
            out.push(b'.');
            digits(out, micros % 1000, 3);
        });
    }

    /// An address, as text.
    pub(super) fn address(&mut self, name: &str, value: IpAddr) {
        self.field(name, |out| {
            out.push(b'"');
            match value {
                IpAddr::V4(address) => {
                    for (at, octet) in address.octets().into_iter().enumerate() {
                        if at > 0 {
                            out.push(b'.');
                        }
                        number(out, octet.into());
                    }
                }
                // Writing to memory does not fail.
                IpAddr::V6(address) => {
                    let _ = write!(out, "{address}");
                }
            }
            out.push(b'"');
        });
    }

    /// A field whose name is of the operator's choice.
    pub(super) fn named(&mut self, name: &str, value: &str) {
        self.separate();
        string(self.out, name);
        self.out.push(b':');
        string(self.out, value);
    }

    /// Makes it whole.
    pub(super) fn end(self) {
        self.out.push(b'}');
    }

    fn separate(&mut self) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
    }
}

/// Appends text as a JSON string.
fn string(out: &mut Vec<u8>, text: &str) {
    if text.bytes().any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
        // Writing text to memory does not fail.
        let _ = serde_json::to_writer(out, text);
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends the last `count` digits of `value`, zeros in front included.
pub(super) fn digits(out: &mut Vec<u8>, value: u64, count: usize) {
    let start = out.len();
    out.resize(start + count, b'0');
    let mut rest = value;
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn object(write: impl FnOnce(&mut Object<'_>)) -> Value {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        write(&mut object);
        object.end();
        serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)))
    }

    #[test]
    fn every_kind_of_value_is_what_a_reader_expects() {
        assert_eq!(object(|_| ()), json!({}));
        let value = object(|object| {
            object.text("text", "a\"b\\c\n");
            object.optional("absent", None);
            object.number("number", u64::MAX);
            object.milliseconds("time", Duration::from_micros(12_005));
            object.address("v4", [192, 0, 2, 1].into());
            object.address("v6", IpAddr::from(1u128.to_be_bytes()));
            object.named("a \"name\"", "x");
        });
        let expected = json!({
            "text": "a\"b\\c\n", "number": u64::MAX, "time": 12.005, "v4": "192.0.2.1", "v6": "::1", "a \"name\"": "x",
        });
        assert_eq!(value, expected);
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in "\\PC*|[\\x00-\\x7f]*") {
            prop_assert_eq!(object(|object| object.text("t", &text)), json!({ "t": text }));
        }

        #[test]
        fn digits_are_the_numbers_last_ones(value in any::<u64>(), count in 1usize..=6) {
            let mut out = Vec::new();
            digits(&mut out, value, count);
            let whole = format!("{value:06}");
            prop_assert_eq!(out, whole.as_bytes()[whole.len() - count..].to_vec());
        }
    }
}
