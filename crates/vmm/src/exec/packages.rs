//! What apt-cache says of packages: stanzas of `Field: value` (deb822), with an empty line between two.

/// A package that can be fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Package {
    pub(super) name: String,
    /// Names of what it needs, alternatives and versions left out.
    depends: Vec<String>,
    /// Bytes of its file.
    pub(super) size: u64,
    /// Bytes of what is in it.
    pub(super) unpacked: u64,
}

impl Package {
    /// The packages of this text, in its order.
    pub(super) fn all(text: &str) -> Vec<Self> {
        text.split("\n\n").filter_map(Self::of_stanza).collect()
    }

    fn of_stanza(stanza: &str) -> Option<Self> {
        let field = |name| {
            let of_field =
                |line: &'_ str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
            stanza.lines().find_map(of_field)
        };
        let number =
            |name| field(name).and_then(|value: String| value.parse::<u64>().ok()).unwrap_or(0);
        let depends = field("Depends").unwrap_or_default();
        let first_word = |text: &str| text.split_whitespace().next().map(str::to_owned);
        Some(Self {
            name: field("Package")?,
            depends: depends.split(',').filter_map(first_word).collect(),
            size: number("Size"),
            // In KiB, for once.
            unpacked: number("Installed-Size").saturating_mul(1024),
        })
    }

    /// The first package that it needs and whose name begins so.
    pub(super) fn needs(&self, start: &str) -> Option<&str> {
        self.depends.iter().map(String::as_str).find(|name| name.starts_with(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_are_read_and_what_is_none_is_left_out() {
        let text = "Package: linux-image-virtual\nDepends: linux-image-9-generic (= 9.1), linux-firmware\n\
                    Size: 1496\nDescription: x\n Size: 3\n\nN: nothing\n\nPackage: b\nInstalled-Size: 2\nSize: -1\n";

        let packages = Package::all(text);

        assert_eq!(packages.len(), 2);
        assert_eq!(packages[0].needs("linux-image-"), Some("linux-image-9-generic"));
        assert_eq!(packages[0].needs("linux-modules-"), None);
        assert_eq!((packages[0].size, packages[0].unpacked), (1496, 0));
        let b = Package { name: "b".into(), depends: vec![], size: 0, unpacked: 2048 };
        assert_eq!(packages[1], b);
    }
}
