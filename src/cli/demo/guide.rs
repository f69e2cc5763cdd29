//! What to try: lines to be pasted into another terminal.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::configuration::Addresses;
use super::issuer::Issuer;

/// Two callers: one who may, and one who may not.
#[derive(Debug)]
pub(super) struct Tokens {
    /// Has the scope that the orders want
    alice: String,
    /// Has not
    bob: String,
}

impl Tokens {
    pub(super) fn issue(issuer: &Issuer, now: SystemTime) -> io::Result<Self> {
        Ok(Self { alice: issuer.token("alice", "orders.read", now)?, bob: issuer.token("bob", "catalog.read", now)? })
    }
}

/// For a shell to evaluate.
pub(super) fn assignments(addresses: &Addresses, tokens: &Tokens) -> String {
    let (Addresses { gateway, admin, .. }, Tokens { alice, bob }) = (addresses, tokens);
    format!("GATEWAY=http://{gateway}\nADMIN=http://{admin}\nTOKEN={alice}\nNO_SCOPE={bob}")
}

/// For a person to read and paste.
pub(super) fn text(addresses: &Addresses, tokens: &Tokens, file: &Path) -> io::Result<String> {
    let Addresses { gateway, admin, issuer, orders: [first, second], catalog } = addresses;
    let program = word(&std::env::current_exe()?);
    let file = word(file);
    let mut text = format!(
        "\
Tollgate is in front of three services now.

  gateway         http://{gateway}
  status page     http://{admin}/
  configuration   {file}
  services        orders-a {first} (weight 3), orders-b {second} (weight 1), catalog {catalog}
  issuer          http://{issuer}

Paste into another terminal:

"
    );
    for line in assignments(addresses, tokens).lines() {
        // Writing to memory does not fail.
        let _ = writeln!(text, "  {line}");
    }
    let rest = format!(
        r#"
Who calls: nobody 401, bob 403 (the scope is missing), alice 200:
  curl -i $GATEWAY/orders/42
  curl -i -H "Authorization: Bearer $NO_SCOPE" $GATEWAY/orders/42
  curl -i -H "Authorization: Bearer $TOKEN" $GATEWAY/orders/42

How much: ten at once and two more each second, then 429:
  for i in $(seq 20); do curl -s -o /dev/null -w '%{{http_code}} ' -H "Authorization: Bearer $TOKEN" $GATEWAY/orders/$i; done; echo

Where to: three of four go to orders-a; everybody may:
  for i in $(seq 8); do curl -s $GATEWAY/hello; done

A service that is slow (504 after a second) or fails when asked to; a redirect; an answer of the gateway's own:
  curl -i "$GATEWAY/catalog?slow"
  curl -i "$GATEWAY/catalog?fail"
  curl -i $GATEWAY/shop/shoes
  curl -i $GATEWAY/robots.txt

What an operator sees:
  curl -i $ADMIN/readyz
  curl -s $ADMIN/metrics | grep '^tollgate_'
  curl -s $ADMIN/api/status

Change the configuration, or hand over to a new process, while requests go through:
  {program} reload -c {file}
  {program} upgrade -c {file}

Ctrl-C ends everything and leaves nothing behind. What goes through:
"#
    );
    text.push_str(&rest);
    Ok(text)
}

/// A path as one word of a shell.
fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(&byte);
    if text.bytes().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn the_lines_that_a_script_needs_stand_in_the_guide_too() {
        let (gateway, admin, issuer, catalog) = (addr(1), addr(2), addr(3), addr(6));
        let addresses = Addresses { gateway, admin, issuer, orders: [addr(4), addr(5)], catalog };
        let tokens = Tokens { alice: "a.b.c".into(), bob: "d.e.f".into() };
        let script = assignments(&addresses, &tokens);
        assert_eq!(script, "GATEWAY=http://127.0.0.1:1\nADMIN=http://127.0.0.1:2\nTOKEN=a.b.c\nNO_SCOPE=d.e.f");
        let text = text(&addresses, &tokens, Path::new("/tmp/demo/tollgate.toml")).expect("written");
        assert!(script.lines().all(|line| text.contains(&format!("  {line}\n"))), "{text}");
        assert!(text.contains(" reload -c /tmp/demo/tollgate.toml\n"), "{text}");
    }

    #[test]
    fn a_path_stays_one_word() {
        assert_eq!(word(Path::new("/tmp/demo-1/tollgate.toml")), "/tmp/demo-1/tollgate.toml");
        assert_eq!(word(Path::new("/tmp/it's here/$HOME")), r"'/tmp/it'\''s here/$HOME'");
    }
}
