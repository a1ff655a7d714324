//! Values of attributes, as CloudEvents 1.0.2 wants them ("Type System", "Context Attributes"):
//! checked where names are, for every door. What another SDK could not read, or would read as
//! something else, is refused; nothing is ever rewritten.
//!
//! Nearly all values are short and ASCII; those are looked at byte by byte, once.

/// What is wrong with a value, to stand behind the attribute's name.
pub(crate) type Problem = &'static str;

/// String: no control characters and none of the code points that are no characters.
pub(crate) fn string(text: &str) -> Result<(), Problem> {
    if text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) {
        return Ok(());
    }
    for c in text.chars().map(u32::from) {
        if matches!(c, 0..=0x1f | 0x7f..=0x9f) {
            return Err("has a control character");
        }
        if matches!(c, 0xfdd0..=0xfdef) || c & 0xfffe == 0xfffe {
            return Err("has a code point that is no character");
        }
    }
    Ok(())
}

/// URI-reference of RFC 3986, section 4.1.
pub(crate) fn uri_reference(text: &str) -> Result<(), Problem> {
    let problem = "is not a URI reference (RFC 3986)";
    let rest = match split_scheme(text.as_bytes()) {
        Some((scheme, rest)) if is_scheme(scheme) => rest,
        // Whatever stands before the first colon would be taken for one.
        Some(_) => return Err(problem),
        None => text.as_bytes(),
    };
    if is_behind_scheme(rest) { Ok(()) } else { Err(problem) }
}

/// URI with a scheme; a fragment may follow.
pub(crate) fn uri(text: &str) -> Result<(), Problem> {
    match split_scheme(text.as_bytes()) {
        Some((scheme, rest)) if is_scheme(scheme) && is_behind_scheme(rest) => Ok(()),
        _ => Err("is not an absolute URI (RFC 3986)"),
    }
}

/// What stands before a colon, if that comes before any path, query or fragment.
fn split_scheme(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| matches!(byte, b':' | b'/' | b'?' | b'#'))?;
    (bytes[at] == b':').then(|| (&bytes[..at], &bytes[at + 1..]))
}

fn is_scheme(bytes: &[u8]) -> bool {
    let is_fit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    bytes.first().is_some_and(u8::is_ascii_alphabetic) && bytes.iter().all(is_fit)
}

/// Authority, path, query and fragment, each made of what it may be made of.
fn is_behind_scheme(bytes: &[u8]) -> bool {
    let (bytes, fragment) = cut(bytes, b'#');
    let (bytes, query) = cut(bytes, b'?');
    let (authority, path) = match bytes.strip_prefix(b"//") {
        Some(rest) => rest.split_at(rest.iter().position(|b| *b == b'/').unwrap_or(rest.len())),
        None => (&[][..], bytes),
    };
    is_made_of(authority, b"[]")
        && is_made_of(path, b"/")
        && is_made_of(query, b"/?")
        && is_made_of(fragment, b"/?")
}

/// What stands before the first such byte, and behind it.
fn cut(bytes: &[u8], at: u8) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == at) {
        Some(position) => (&bytes[..position], &bytes[position + 1..]),
        None => (bytes, &[]),
    }
}

/// Characters of a path's segment that stand for themselves.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0u8;
    while byte < 0x80 {
        plain[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut others: &[u8] = b"-._~!$&'()*+,;=:@";
    while let [byte, rest @ ..] = others {
        plain[*byte as usize] = true;
        others = rest;
    }
    plain
};

/// Characters of a path's segment, percent-encoded ones, and some more.
fn is_made_of(mut bytes: &[u8], more: &[u8]) -> bool {
    let is_plain = |byte: &u8| PLAIN[usize::from(*byte)] || more.contains(byte);
    if bytes.iter().all(is_plain) {
        return true;
    }
    while let [byte, rest @ ..] = bytes {
        bytes = match (byte, rest) {
            (b'%', [high, low, rest @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                rest
            }
            (b'%', _) => return false,
            (byte, rest) if is_plain(byte) => rest,
            _ => return false,
        };
    }
    true
}

/// Timestamp: `date-time` of RFC 3339, of the years 1 to 9999.
pub(crate) fn time(text: &str) -> Result<(), Problem> {
    if is_time(text.as_bytes()).is_some() { Ok(()) } else { Err("is not a time of RFC 3339") }
}

fn is_time(text: &[u8]) -> Option<()> {
    let (date, rest) = text.split_at_checked(10)?;
    let (clock, rest) = rest.split_at_checked(9)?;
    let (
        [y1, y2, y3, y4, b'-', mon @ .., b'-', d1, d2],
        [b'T' | b't', h1, h2, b':', m1, m2, b':', s1, s2],
    ) = (date, clock)
    else {
        return None;
    };
    let (year, month) = (number(&[*y1, *y2, *y3, *y4])?, number(mon)?);
    let (day, hour) = (number(&[*d1, *d2])?, number(&[*h1, *h2])?);
    let (minute, second) = (number(&[*m1, *m2])?, number(&[*s1, *s2])?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    // A leap second ends a minute that is the last of its hour, whatever the offset.
    let is_second = second <= 59 || (second == 60 && minute == 59);
    if year == 0 || !(1..=days).contains(&day) || hour > 23 || minute > 59 || !is_second {
        return None;
    }
    let offset = match rest {
        [b'.', fraction @ ..] => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            &fraction[digits..]
        }
        offset => offset,
    };
    match offset {
        [b'Z' | b'z'] => Some(()),
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            let is_offset = number(&[*h1, *h2])? <= 23 && number(&[*m1, *m2])? <= 59;
            is_offset.then_some(())
        }
        _ => None,
    }
}

/// Digits, and nothing else.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |sum, digit| {
        digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0'))
    })
}

/// Media type of RFC 2046, with parameters.
pub(crate) fn media_type(text: &str) -> Result<(), Problem> {
    string(text)?;
    if is_media_type(text.as_bytes()).is_some() {
        Ok(())
    } else {
        Err("is not a media type (RFC 2046)")
    }
}

fn is_media_type(text: &[u8]) -> Option<()> {
    let rest = token(text)?.strip_prefix(b"/")?;
    let mut rest = blank(token(rest)?);
    while !rest.is_empty() {
        rest = blank(rest.strip_prefix(b";")?);
        // Nothing between two semicolons, or behind the last one, says nothing.
        if rest.is_empty() || rest.starts_with(b";") {
            continue;
        }
        let value = token(rest)?.strip_prefix(b"=")?;
        rest = match value.strip_prefix(b"\"") {
            Some(quoted) => blank(behind_quoted(quoted)?),
            None => blank(token(value)?),
        };
    }
    Some(())
}

/// What stands behind a token, which is not empty.
fn token(text: &[u8]) -> Option<&[u8]> {
    let is_fit = |byte: &u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(byte);
    let length = text.iter().take_while(|byte| is_fit(byte)).count();
    (length > 0).then(|| &text[length..])
}

fn blank(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|byte| **byte == b' ').count()..]
}

/// What stands behind the end of a quoted string.
fn behind_quoted(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = match text {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', _, rest @ ..] | [_, rest @ ..] => rest,
            [] => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(what: fn(&str) -> Result<(), Problem>, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(what(text), Ok(()), "{text:?}");
        }
        for text in bad {
            assert!(what(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn strings_have_characters() {
        check(
            string,
            &["", "order 7", "Zoë", "日本", "\u{a0}", "\u{fffd}", "\u{10fffd}", "😀", "\u{e000}"],
            &["a\nb", "\0", "\u{7f}", "\u{85}", "\u{fdd0}", "\u{fffe}", "\u{1ffff}", "a\tb"],
        );
    }

    #[test]
    fn uri_references_are_those_of_rfc_3986() {
        let absolute = [
            "https://example.org",
            "https://user@example.org:8080/a/b;c=1?q=%20x/y?#part/1?",
            "http://[2001:db8::7]:80/",
            "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66",
            "mailto:a@b.example",
            "file:///a",
            "a:",
            "tag:x.example,2026:y",
        ];
        let relative =
            ["/", "/shop/orders", "shop", "../a", "//host/a", "?q", "#f", "a/b:c", "/a(1)'!$"];
        let not = [
            "two words",
            "/a b",
            "a\\b",
            "<a>",
            "/a|b",
            "\"",
            "/%",
            "/%2",
            "/%zz",
            "/é",
            "10.0.0.1:80",
            ":a",
            "1a:b",
            "/a#b#c",
            "/a[1]",
            "http://a b/",
            "/{id}",
            "^",
            "`",
            "/a\u{7f}",
            "/\n",
        ];
        check(uri_reference, &absolute, &not);
        check(uri_reference, &relative, &[]);
        check(uri, &absolute, &not);
        check(uri, &[], &relative);
        check(uri, &[], &[""]);
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        check(
            time,
            &[
                "2026-11-30T18:35:00Z",
                "2026-11-30t18:35:00z",
                "2026-11-30T18:35:00.123456789+05:30",
                "2024-02-29T23:59:60Z",
                "2000-02-29T00:00:00-00:00",
                "0001-01-01T00:00:00Z",
                "9999-12-31T23:59:59.999Z",
            ],
            &[
                "",
                "yesterday",
                "2026-11-30",
                "2026-11-30 18:35:00Z",
                "2026-11-30T18:35:00",
                "2026-11-30T18:35Z",
                "2026-11-30T18:35:00.Z",
                "2026-13-01T00:00:00Z",
                "2026-00-01T00:00:00Z",
                "2026-02-29T00:00:00Z",
                "1900-02-29T00:00:00Z",
                "2026-11-31T00:00:00Z",
                "2026-11-30T24:00:00Z",
                "2026-11-30T18:60:00Z",
                "2026-11-30T18:35:60Z",
                "0000-01-01T00:00:00Z",
                "2026-11-30T18:35:00+24:00",
                "2026-11-30T18:35:00+0530",
                "2026-11-30T18:35:00ZZ",
                "+026-11-30T18:35:00Z",
                "20261-1-30T18:35:00Z",
                "２026-11-30T18:35:00Z",
                "1795000000",
            ],
        );
    }

    #[test]
    fn media_types_are_those_of_rfc_2046() {
        check(
            media_type,
            &[
                "application/json",
                "text/plain;charset=utf-8",
                "text/plain; charset=\"utf-8; \\\"x\\\"\" ; a=b",
                "application/vnd.a+json; version=1.0;",
                "x/y",
            ],
            &[
                "",
                "json",
                "/json",
                "text/",
                "text /plain",
                "text/plain charset=utf-8",
                "text/plain; charset",
                "text/plain; charset=",
                "text/plain; charset=\"utf",
                "text/plain, text/html",
                "te xt/plain",
                "text/pläin",
                "text/plain;\nx=y",
                "*/*;q=é",
            ],
        );
    }
}
