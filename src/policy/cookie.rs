//! One cookie in the bytes of `Cookie` headers: its value, and the header without it. Not what the
//! value means: that is [`super::sticky`].

/// A `Cookie` header without one cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stripped {
    /// The cookie is not in it: it stays as it is.
    Same,
    /// Nothing else is in it: it is to be left out.
    Nothing,
    /// What is left, byte for byte and in its order.
    Rest(Vec<u8>),
}

/// The value of the first cookie of that name in a header, without the double quotes around it. Of
/// several headers the first that has one wins: `headers.find_map(|header| find(header, name))`.
///
/// Names differ by case. Pairs end at `;`, inside quotes too, as browsers and RFC 6265 (4.2.1) have
/// it: RFC 2965 had it otherwise, and no browser sends that.
#[inline]
pub fn find<'h>(header: &'h [u8], name: &[u8]) -> Option<&'h [u8]> {
    pairs(header).find_map(|pair| value(pair, name)).map(unquoted)
}

/// The header without any cookie of that name. Allocates only if there is one.
pub fn strip(header: &[u8], name: &[u8]) -> Stripped {
    if !pairs(header).any(|pair| value(pair, name).is_some()) {
        return Stripped::Same;
    }
    let mut rest = Vec::with_capacity(header.len());
    for pair in pairs(header).filter(|pair| value(pair, name).is_none()) {
        if rest.is_empty() {
            rest.extend_from_slice(pair.trim_ascii_start());
        } else {
            rest.push(b';');
            rest.extend_from_slice(pair);
        }
    }
    let empty = rest.iter().all(|byte| matches!(byte, b' ' | b'\t' | b';'));
    if empty { Stripped::Nothing } else { Stripped::Rest(rest) }
}

/// What stands between the semicolons.
fn pairs(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    header.split(|byte| *byte == b';')
}

/// The value of a pair if it has that name. Space around the name is not part of it: a server may
/// read it so (RFC 6265, 5.2), and then it would see a cookie that is ours.
#[inline]
fn value<'p>(pair: &'p [u8], name: &[u8]) -> Option<&'p [u8]> {
    let after = pair.trim_ascii_start().strip_prefix(name)?;
    let value = after.trim_ascii_start().strip_prefix(b"=")?;
    Some(value.trim_ascii())
}

fn unquoted(value: &[u8]) -> &[u8] {
    let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    inner.unwrap_or(value)
}

/// What a fuzzer feeds, a name and a header with a line end between them: stripping leaves every
/// other pair in its order, and nothing of the name.
pub fn fuzz(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (name, header) = data.split_at(at);
    let (name, header) = (name.trim_ascii(), header.get(1..).unwrap_or_default());
    if name.is_empty() || name.iter().any(|byte| matches!(byte, b';' | b'=')) {
        return;
    }
    let others = |header| -> Vec<Vec<u8>> {
        let others = pairs(header).filter(|pair| value(pair, name).is_none());
        let others = others.map(|pair| pair.trim_ascii().to_vec());
        // An empty pair says nothing; the first of a header may be lost.
        others.filter(|pair| !pair.is_empty()).collect()
    };
    let found = find(header, name);
    match strip(header, name) {
        Stripped::Same => assert_eq!(found, None),
        Stripped::Nothing => assert!(found.is_some() && others(header).is_empty()),
        Stripped::Rest(rest) => {
            assert!(found.is_some() && rest.len() < header.len());
            assert_eq!(find(&rest, name), None);
            assert_eq!(others(&rest), others(header));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn left(header: &str) -> String {
        match strip(header.as_bytes(), b"SLUICE") {
            Stripped::Same => "same".to_owned(),
            Stripped::Nothing => "nothing".to_owned(),
            Stripped::Rest(rest) => String::from_utf8(rest).unwrap(),
        }
    }

    #[test]
    fn the_cookie_is_found_and_the_others_are_left() {
        for (header, expected, rest) in [
            ("SLUICE=a", Some("a"), "nothing"),
            ("SLUICE=a; b=2", Some("a"), "b=2"),
            ("a=1; SLUICE=x; b=2", Some("x"), "a=1; b=2"),
            ("a=1;SLUICE=x;b=2", Some("x"), "a=1;b=2"),
            ("a=1; SLUICE=x", Some("x"), "a=1"),
            ("a=1; SLUICE=x;", Some("x"), "a=1;"),
            ("SLUICE=first; a=1; SLUICE=second", Some("first"), "a=1"),
            ("SLUICE=a;", Some("a"), "nothing"),
            (" ; SLUICE=a ; ", Some("a"), "nothing"),
            ("SLUICE=\"q\"; b=\"c d\"", Some("q"), "b=\"c d\""),
            ("SLUICE=\"q; b=2", Some("\"q"), "b=2"),
            ("SLUICE=", Some(""), "nothing"),
            ("SLUICE=a=b", Some("a=b"), "nothing"),
            ("SLUICE =a; b = c", Some("a"), "b = c"),
            ("SLUICE", None, "same"),
            ("XSLUICE=a; SLUICEX=b; sluice=c", None, "same"),
            ("a=SLUICE=b", None, "same"),
            ("", None, "same"),
            ("a=1", None, "same"),
        ] {
            assert_eq!(find(header.as_bytes(), b"SLUICE"), expected.map(str::as_bytes), "{header}");
            assert_eq!(left(header), rest, "{header}");
        }
    }

    #[test]
    fn of_several_headers_the_first_that_has_it_wins() {
        let headers = [&b"a=1"[..], b"b=2; SLUICE=one", b"SLUICE=two"];
        let found = headers.into_iter().find_map(|header| find(header, b"SLUICE"));
        assert_eq!(found, Some(&b"one"[..]));
    }

    proptest! {
        #[test]
        fn stripping_leaves_all_others_in_order(
            pairs in prop::collection::vec("(S|SL|s|a|b)=[a-z\"= ]{0,4}", 0..8),
            gaps in prop::collection::vec("[ \t]{0,2}", 8),
        ) {
            let spaced = pairs.iter().zip(&gaps).map(|(pair, gap)| format!("{gap}{pair}"));
            let header = spaced.collect::<Vec<_>>().join(";");
            let others: Vec<&str> =
                pairs.iter().map(|pair| pair.trim()).filter(|pair| !pair.starts_with("S=")).collect();
            let rest = match strip(header.as_bytes(), b"S") {
                Stripped::Same => header,
                Stripped::Nothing => String::new(),
                Stripped::Rest(rest) => String::from_utf8(rest).unwrap(),
            };
            let left: Vec<&str> =
                rest.split(';').map(str::trim).filter(|pair| !pair.is_empty()).collect();
            prop_assert_eq!(left, others);
        }

        #[test]
        fn any_bytes_hold(data in prop::collection::vec(
            prop::sample::select(b"SLab=; \t\"\n\0\xff".to_vec()), 0..40)
        ) {
            fuzz(&data);
        }
    }
}
