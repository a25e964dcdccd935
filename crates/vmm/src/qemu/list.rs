//! QEMU's option lists: `key=value` pairs with commas between them, and commas doubled in values.

use super::QemuError;

/// One element of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Pair {
    key: String,
    /// `None` for a key alone, which is a switch that is on.
    value: Option<String>,
}

/// The argument of one option, taken apart. Values are taken out key by key; what is left in the
/// end is what nobody knew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct OptionList {
    option: &'static str,
    pairs: Vec<Pair>,
}

impl OptionList {
    /// Reads the argument of `option`. A first element without `=` is the value of `implied`, if
    /// the option has such a key.
    pub(super) fn parse(option: &'static str, implied: Option<&str>, text: &str) -> Self {
        let mut pairs = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let key_end = rest.find(['=', ',']).unwrap_or(rest.len());
            let key = &rest[..key_end];
            let has_value = rest[key_end..].starts_with('=');
            match implied {
                Some(implied) if pairs.is_empty() && !has_value => {
                    let (value, tail) = take_value(rest);
                    pairs.push(Pair { key: implied.to_owned(), value: Some(value) });
                    rest = tail;
                }
                _ if has_value => {
                    let (value, tail) = take_value(&rest[key_end + 1..]);
                    pairs.push(Pair { key: key.to_owned(), value: Some(value) });
                    rest = tail;
                }
                _ => {
                    pairs.push(Pair { key: key.to_owned(), value: None });
                    rest = rest.get(key_end + 1..).unwrap_or_default();
                }
            }
        }
        Self { option, pairs }
    }

    /// Takes every value of `key` out, in their order.
    pub(super) fn take_all(&mut self, key: &str) -> Result<Vec<String>, QemuError> {
        let mut values = Vec::new();
        for pair in self.pairs.extract_if(.., |pair| pair.key == key) {
            values
                .push(pair.value.ok_or(QemuError::NoValue { option: self.option, key: pair.key })?);
        }
        Ok(values)
    }

    /// Takes the value of `key` out.
    pub(super) fn take(&mut self, key: &str) -> Result<Option<String>, QemuError> {
        let mut values = self.take_all(key)?;
        if values.len() > 1 {
            return Err(self.twice(key));
        }
        Ok(values.pop())
    }

    /// Takes the value of a key out that must be there; `example` is the option as it may look.
    pub(super) fn require(
        &mut self,
        key: &'static str,
        example: &'static str,
    ) -> Result<String, QemuError> {
        let missing = QemuError::KeyMissing { option: self.option, key, example };
        self.take(key)?.ok_or(missing)
    }

    /// Takes the value of a switch out: on or off, `key` for on and `nokey` for off.
    pub(super) fn take_bool(&mut self, key: &str) -> Result<Option<bool>, QemuError> {
        let opposite = format!("no{key}");
        let mut found = None;
        let is_it =
            |pair: &mut Pair| pair.key == key || (pair.value.is_none() && pair.key == opposite);
        for pair in self.pairs.extract_if(.., is_it).collect::<Vec<_>>() {
            let on = match pair.value.as_deref() {
                None => pair.key == key,
                Some("on" | "yes" | "true" | "y") => true,
                Some("off" | "no" | "false" | "n") => false,
                Some(other) => {
                    return Err(QemuError::NotBool {
                        option: self.option,
                        key: key.to_owned(),
                        value: other.to_owned(),
                    });
                }
            };
            if found.replace(on).is_some() {
                return Err(self.twice(key));
            }
        }
        Ok(found)
    }

    /// Takes keys out that may only say what is so.
    pub(super) fn allow(&mut self, facts: &[(&str, &'static str)]) -> Result<(), QemuError> {
        for &(key, only) in facts {
            let said = if matches!(only, "on" | "off") {
                self.take_bool(key)?.map(|on| if on { "on" } else { "off" }.to_owned())
            } else {
                self.take(key)?
            };
            if let Some(value) = said.filter(|said| said != only) {
                return Err(QemuError::Only {
                    option: self.option,
                    key: key.to_owned(),
                    value: value.escape_debug().to_string(),
                    only,
                });
            }
        }
        Ok(())
    }

    /// Takes every key that begins with `start` out, with what follows in the key and the value.
    pub(super) fn take_group(&mut self, start: &str) -> Result<Vec<(String, String)>, QemuError> {
        let mut group = Vec::new();
        for pair in self.pairs.extract_if(.., |pair| pair.key.starts_with(start)) {
            let rest = pair.key[start.len()..].to_owned();
            let key = pair.key.escape_debug().to_string();
            let missing = QemuError::NoValue { option: self.option, key };
            group.push((rest, pair.value.ok_or(missing)?));
        }
        Ok(group)
    }

    /// Adds the pairs of another argument of the same option.
    pub(super) fn append(&mut self, mut other: Self) {
        self.pairs.append(&mut other.pairs);
    }

    /// Refuses what is left: keys that QEMU has, by name, and those that nobody has. A name that
    /// ends in `*` stands for all keys that begin so. `keys` are those that there are.
    pub(super) fn finish(&self, in_qemu: &[&str], keys: &[&str]) -> Result<(), QemuError> {
        let Some(pair) = self.pairs.first() else { return Ok(()) };
        let key = pair.key.escape_debug().to_string();
        let option = self.option;
        let known = in_qemu.iter().any(|known| match known.strip_suffix('*') {
            Some(start) => key.starts_with(start),
            None => *known == key,
        });
        Err(if known {
            QemuError::KeyOnlyInQemu { option, key }
        } else if keys.contains(&key.as_str()) {
            // It was taken out, and was there again.
            QemuError::KeyTwice { option, key }
        } else {
            QemuError::NoSuchKey { option, key, keys: keys.join(", ") }
        })
    }

    fn twice(&self, key: &str) -> QemuError {
        QemuError::KeyTwice { option: self.option, key: key.to_owned() }
    }
}

/// A value up to the next single comma, and what follows it.
fn take_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let Some((part, tail)) = rest.split_once(',') else {
            value.push_str(rest);
            return (value, "");
        };
        value.push_str(part);
        match tail.strip_prefix(',') {
            Some(tail) => {
                value.push(',');
                rest = tail;
            }
            None => return (value, tail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(implied: Option<&str>, text: &str) -> Vec<(String, Option<String>)> {
        let list = OptionList::parse("-x", implied, text);
        list.pairs.into_iter().map(|pair| (pair.key, pair.value)).collect()
    }

    #[test]
    fn lists_are_taken_apart_as_qemu_does() {
        let on = |key: &str| (key.to_owned(), None);
        let is = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
        for (implied, text, expected) in [
            (None, "", vec![]),
            (None, "a=1,b=2", vec![is("a", "1"), is("b", "2")]),
            (None, "a=x,,y,b=,,", vec![is("a", "x,y"), is("b", ",")]),
            (None, "a=x=y,b", vec![is("a", "x=y"), on("b")]),
            (None, "a,nob,c=", vec![on("a"), on("nob"), is("c", "")]),
            (Some("type"), "q35,accel=tcg", vec![is("type", "q35"), is("accel", "tcg")]),
            (Some("type"), "accel=tcg,q35", vec![is("accel", "tcg"), on("q35")]),
            (Some("path"), "/a,,b,server", vec![is("path", "/a,b"), on("server")]),
        ] {
            assert_eq!(pairs(implied, text), expected, "{text}");
        }
    }

    #[test]
    fn switches_are_on_off_alone_or_with_no() {
        for (text, expected) in [
            ("a=1", None),
            ("wait", Some(true)),
            ("wait=on", Some(true)),
            ("wait=yes", Some(true)),
            ("nowait", Some(false)),
            ("wait=off", Some(false)),
        ] {
            let mut list = OptionList::parse("-x", None, text);
            assert_eq!(list.take_bool("wait"), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_list_is_one_line() {
        let read = |text: &str| {
            let mut list = OptionList::parse("-x", None, text);
            list.require("id", "-x id=ID")?;
            list.take_bool("wait")?;
            list.allow(&[("usb", "off"), ("cache", "writeback")])?;
            list.finish(&["addr", "file.*"], &["id", "wait"])
        };
        for (text, line) in [
            ("wait=on", "-x: the key id is missing: write -x id=ID"),
            ("id", "-x: the key id has no value: write id=VALUE"),
            ("id=a,id=b", "-x: the key id is given twice: leave one out"),
            ("id=a,wait,nowait", "-x: the key wait is given twice: leave one out"),
            ("id=a,wait=maybe", r#"-x: wait is on or off, not "maybe""#),
            ("id=a,usb", "-x: Cloister does not do usb=on: write usb=off or leave it out"),
            (
                "id=a,cache=none",
                "-x: Cloister does not do cache=none: write cache=writeback or leave it out",
            ),
            ("id=a,addr=5", "-x: QEMU has the key addr and Cloister does not: leave it out"),
            (
                "id=a,file.driver=nbd",
                "-x: QEMU has the key file.driver and Cloister does not: leave it out",
            ),
            ("id=a,addr2=5", "-x: there is no key addr2: the keys are id, wait"),
            ("id=a,=5", "-x: there is no key : the keys are id, wait"),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), line, "{text}");
        }
        assert_eq!(read("id=a,usb=off,nowait,cache=writeback"), Ok(()));
    }

    proptest! {
        #[test]
        fn any_value_with_its_commas_doubled_reads_back(
            values in prop::collection::vec("\\PC{0,12}", 1..5),
        ) {
            let text: Vec<String> =
                values.iter().map(|value| format!("k={}", value.replace(',', ",,"))).collect();

            let read = OptionList::parse("-x", Some("i"), &text.join(",")).take_all("k");

            prop_assert_eq!(read, Ok(values));
        }
    }
}
