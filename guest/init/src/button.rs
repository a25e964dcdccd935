//! The power button, as the kernel's button driver tells of it.

use std::fs::{self, File};
use std::io::Read;

/// `struct input_event` of linux/input.h: a time, then type, code and value.
const EVENT_LEN: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
/// What the driver calls its input device.
const NAME: &str = "Power Button";

/// The task `button`: waits until the power button is pressed. The modules `button` and `evdev` are
/// loaded.
pub(crate) fn wait(_: &[&str]) -> Result<(), String> {
    let mut device = open()?;
    println!("button: waiting");
    let mut event = [0; EVENT_LEN];
    loop {
        device
            .read_exact(&mut event)
            .map_err(|error| format!("cannot read the power button: {error}"))?;
        let half = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
        if (half(16), half(18)) == (EV_KEY, KEY_POWER) && event[20] == 1 {
            println!("button: pressed");
            return Ok(());
        }
    }
}

fn open() -> Result<File, String> {
    let devices = fs::read_dir("/sys/class/input").map_err(|error| format!("no input: {error}"))?;
    let name = devices
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("event"))
        .find(|name| {
            let path = format!("/sys/class/input/{name}/device/name");
            fs::read_to_string(path).is_ok_and(|name| name.trim() == NAME)
        })
        .ok_or("there is no power button")?;
    File::open(format!("/dev/input/{name}")).map_err(|error| format!("cannot open {name}: {error}"))
}
