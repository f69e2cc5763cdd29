//! "Did you mean …?"

/// The name that was probably meant, if one is near enough.
pub(super) fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Far longer than any name: comparing would only cost time.
    if written.len() > 128 {
        return None;
    }
    let written = written.to_lowercase();
    let allowed = (written.chars().count() / 3).max(1);
    names
        .into_iter()
        .filter(|name| name.len().abs_diff(written.len()) <= 4 * allowed)
        .map(|name| (strsim::osa_distance(&written, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= allowed && *distance < name.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The question to end a message with, or nothing.
pub(super) fn did_you_mean<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(written, names).map(|name| format!(". Did you mean \"{name}\"?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        assert_eq!(nearest("paymets", ["orders", "payments"]), Some("payments"));
        assert_eq!(nearest("Orders", ["orders", "payments"]), Some("orders"));
        assert_eq!(nearest("ab", ["cd"]), None);
        assert_eq!(nearest("frontend", ["payments"]), None);
        assert_eq!(nearest("", ["a"]), None);
    }
}
