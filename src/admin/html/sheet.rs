//! What a page is made of. Everything that is not written in this folder goes through [`Text`], which escapes it.

use std::borrow::Cow;
use std::fmt::{self, Display, Write};

/// Text that a browser must not take for markup.
pub(super) struct Text<T>(pub(super) T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| match character {
            '&' => self.0.write_str("&amp;"),
            '<' => self.0.write_str("&lt;"),
            '>' => self.0.write_str("&gt;"),
            '"' => self.0.write_str("&quot;"),
            '\'' => self.0.write_str("&#39;"),
            _ => self.0.write_char(character),
        })
    }
}

/// One cell of a table.
pub(super) enum Cell<'a> {
    Empty,
    Text(Cow<'a, str>),
    Code(Cow<'a, str>),
    Number(u64),
    Good(&'a str),
    Wary(Cow<'a, str>),
    Bad(&'a str),
}

impl<'a> Cell<'a> {
    pub(super) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn code(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Code(text.into())
    }
}

impl Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("<td></td>"),
            Self::Text(text) => write!(f, "<td>{}</td>", Text(text)),
            Self::Code(text) => write!(f, "<td><code>{}</code></td>", Text(text)),
            Self::Number(number) => write!(f, "<td class=\"number\">{number}</td>"),
            Self::Good(text) => write!(f, "<td class=\"good\">{}</td>", Text(text)),
            Self::Wary(text) => write!(f, "<td class=\"wary\">{}</td>", Text(text)),
            Self::Bad(text) => write!(f, "<td class=\"bad\">{}</td>", Text(text)),
        }
    }
}

/// A page while it is written.
#[derive(Default)]
pub(super) struct Sheet(String);

impl Sheet {
    /// Markup of ours; whatever else stands in it is a number or [`Text`].
    pub(super) fn add(&mut self, markup: fmt::Arguments<'_>) {
        // Writing to memory does not fail.
        let _ = self.0.write_fmt(markup);
    }

    /// A table with a row (or several) for each item; nothing if there is none. A column whose title begins with `#`
    /// is one of numbers.
    pub(super) fn table<'a, T, R>(
        &mut self,
        title: &str,
        columns: &[&str],
        items: &'a [T],
        rows: impl Fn(&'a T) -> Vec<R>,
    ) where
        R: AsRef<[Cell<'a>]>,
    {
        if items.is_empty() {
            return;
        }
        self.add(format_args!("<h2>{title}</h2><div class=\"sheet\"><table><thead><tr>"));
        for column in columns {
            match column.strip_prefix('#') {
                Some(column) => self.add(format_args!("<th class=\"number\">{column}</th>")),
                None => self.add(format_args!("<th>{column}</th>")),
            }
        }
        self.add(format_args!("</tr></thead><tbody>\n"));
        for row in items.iter().flat_map(rows) {
            self.add(format_args!("<tr>"));
            row.as_ref().iter().for_each(|cell| self.add(format_args!("{cell}")));
            self.add(format_args!("</tr>\n"));
        }
        self.add(format_args!("</tbody></table></div>\n"));
    }

    pub(super) fn finish(mut self) -> String {
        self.add(format_args!("</body></html>\n"));
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn markup_in_a_text_is_shown_and_not_obeyed() {
        let text = Text("<script>alert('\"&\"')</script>").to_string();
        assert_eq!(text, "&lt;script&gt;alert(&#39;&quot;&amp;&quot;&#39;)&lt;/script&gt;");
    }

    #[test]
    fn a_table_of_nothing_is_not_there() {
        let mut sheet = Sheet::default();
        sheet.table("Limits", &["Limit"], &[] as &[&str], |name| vec![[Cell::text(*name)]]);
        assert_eq!(sheet.finish(), "</body></html>\n");
    }

    proptest! {
        #[test]
        fn no_cell_can_leave_its_place(text in ".{0,40}") {
            for cell in [Cell::text(&text), Cell::code(&text), Cell::Good(&text), Cell::Bad(&text), Cell::Wary((&text).into())] {
                let markup = cell.to_string();
                let inside = markup.replace("<code>", "").replace("</code>", "");
                prop_assert!(inside.starts_with("<td") && inside.ends_with("</td>"));
                prop_assert_eq!(inside.matches('<').count(), 2);
                prop_assert_eq!(inside.matches('>').count(), 2);
            }
        }
    }
}
