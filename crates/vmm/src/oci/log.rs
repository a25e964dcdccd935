//! The file that an engine reads errors from, in the forms of runc.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use cloister_devices::Civil;
use serde_json::json;

/// Where errors are written besides standard error.
#[derive(Debug)]
pub(super) struct Log {
    file: Option<File>,
    json: bool,
}

impl Log {
    pub(super) fn open(path: Option<&Path>, format: &str) -> Result<Self, String> {
        let json = match format {
            "json" => true,
            "text" => false,
            other => {
                return Err(format!("--log-format: {other:?} is no format: write text or json"));
            }
        };
        let open = |path: &Path| {
            let opened = OpenOptions::new().append(true).create(true).open(path);
            opened.map_err(|error| {
                format!("--log: cannot write {}: {error}: name another file", path.display())
            })
        };
        Ok(Self { file: path.map(open).transpose()?, json })
    }

    pub(super) fn error(&self, message: &str) {
        let Some(mut file) = self.file.as_ref() else { return };
        let time = time(SystemTime::now());
        let line = match self.json {
            true => json!({ "level": "error", "msg": message, "time": time }).to_string(),
            false => format!("time={time:?} level=error msg={message:?}"),
        };
        // The message is on standard error too.
        let _ = file.write_all((line + "\n").as_bytes());
    }
}

/// A time as RFC 3339 has it, in UTC.
pub(super) fn time(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let Civil { year, month, day, hour, minute, second } =
        Civil::from_unix(since.as_secs().try_into().unwrap_or(i64::MAX));
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z",
        since.subsec_nanos()
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_has_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000000007Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000007Z"),
            (1_735_689_600, "2025-01-01T00:00:00.000000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000007Z"),
        ] {
            assert_eq!(time(UNIX_EPOCH + Duration::new(seconds, 7)), text);
        }
    }

    #[test]
    fn an_error_is_a_line_of_json_with_its_message() {
        let path = std::env::temp_dir().join(format!("cloister-oci-log-{}", std::process::id()));

        Log::open(Some(&path), "json").unwrap().error("a \"reason\"\n");

        let line = fs::read_to_string(&path).unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["level"], &value["msg"]), (&"error".into(), &"a \"reason\"\n".into()));
        assert_eq!(line.lines().count(), 1);
        fs::remove_file(path).unwrap();
        assert!(Log::open(None, "xml").unwrap_err().contains("write text or json"));
    }
}
