//! A guest that asks for what it should, and one that does not.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use super::*;
use crate::abi::{IN_HEADER, ROOT};

/// A folder with a share in it and something beside the share, removed with it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let name = format!("cloister-fs-{}-{name}", std::process::id());
        let place = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(place.join("share/folder")).unwrap();
        fs::write(place.join("secret"), "secret").unwrap();
        fs::write(place.join("share/file"), "contents").unwrap();
        symlink("../secret", place.join("share/out")).unwrap();
        symlink("..", place.join("share/up")).unwrap();
        symlink("file", place.join("share/link")).unwrap();
        Self(place)
    }

    fn guest(&self, writable: bool) -> Guest {
        let folder = File::open(self.0.join("share")).unwrap();
        Guest::new(vec![Share::new("share", folder.into(), writable)], false)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Guest(Server);

type Answer = Result<Vec<u8>, i32>;

impl Guest {
    fn new(shares: Vec<Share>, several: bool) -> Self {
        let descriptors = File::open("/proc/self/fd").unwrap();
        Self(Server::new(shares, several, descriptors.into()))
    }

    fn ask_in(&mut self, room: usize, opcode: u32, node: u64, parts: &[&[u8]]) -> Answer {
        let body = parts.concat();
        let mut request = Vec::new();
        request.put32((IN_HEADER + body.len()) as u32);
        request.put32(opcode);
        request.put64(7);
        request.put64(node);
        request.resize(IN_HEADER, 0);
        request.extend(body);
        let mut reply = Vec::new();
        self.0.answer(&request, room, &mut reply);
        let error = i32::from_le_bytes(reply[4..8].try_into().unwrap());
        assert_eq!(reply[0..4], (reply.len() as u32).to_le_bytes());
        assert_eq!(reply[8..16], 7_u64.to_le_bytes());
        assert!(reply.len() <= room);
        if error == 0 { Ok(reply[OUT_HEADER..].to_vec()) } else { Err(-error) }
    }

    fn ask(&mut self, opcode: u32, node: u64, parts: &[&[u8]]) -> Answer {
        self.ask_in(1 << 20, opcode, node, parts)
    }

    fn look_up(&mut self, parent: u64, name: &str) -> Result<u64, i32> {
        let entry = self.ask(opcode::LOOKUP, parent, &[name.as_bytes(), b"\0"])?;
        Ok(u64_at(&entry, 0))
    }

    fn open(&mut self, node: u64, flags: u32) -> Result<u64, i32> {
        let open = self.ask(opcode::OPEN, node, &[&flags.to_le_bytes(), &[0; 4]])?;
        Ok(u64_at(&open, 0))
    }

    fn read(&mut self, handle: u64) -> Answer {
        self.ask(opcode::READ, 0, &[&handle.to_le_bytes(), &[0; 8], &[0, 16, 0, 0], &[0; 20]])
    }

    fn names(&mut self, node: u64) -> Vec<String> {
        let open = self.ask(opcode::OPENDIR, node, &[&[0; 8]]).unwrap();
        let (mut offset, mut names) = (0, Vec::new());
        loop {
            let at: u64 = offset;
            let parts = [&open[..8], &at.to_le_bytes(), &200_u32.to_le_bytes(), &[0; 20]];
            let entries = self.ask(opcode::READDIR, node, &parts).unwrap();
            if entries.is_empty() {
                names.sort();
                return names;
            }
            let mut rest = &entries[..];
            while !rest.is_empty() {
                offset = u64_at(rest, 8);
                let len = u32::from_le_bytes(rest[16..20].try_into().unwrap()) as usize;
                names.push(String::from_utf8(rest[24..24 + len].to_vec()).unwrap());
                rest = &rest[(24 + len).next_multiple_of(8)..];
            }
        }
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

const NOENT: u64 = 0;

#[test]
fn files_folders_and_links_are_read() {
    let place = Place::new("read");
    let mut guest = place.guest(false);

    let file = guest.look_up(ROOT, "file").unwrap();
    let handle = guest.open(file, 0).unwrap();
    let link = guest.look_up(ROOT, "link").unwrap();

    assert_eq!(guest.read(handle).unwrap(), b"contents");
    assert_eq!(guest.ask(opcode::READLINK, link, &[]).unwrap(), b"file");
    assert_eq!(guest.names(ROOT), [".", "..", "file", "folder", "link", "out", "up"]);
    assert_eq!(guest.look_up(ROOT, "nothing").unwrap(), NOENT);
    let attributes = guest.ask(opcode::GETATTR, file, &[&[0; 16]]).unwrap();
    assert_eq!(u64_at(&attributes, 24), 8);
    assert_eq!(guest.ask(opcode::STATFS, ROOT, &[]).unwrap().len(), 80);
}

#[test]
fn entries_come_with_what_a_lookup_says_of_them() {
    let place = Place::new("plus");
    let mut guest = place.guest(false);
    let known = guest.look_up(ROOT, "file").unwrap();
    let open = guest.ask(opcode::OPENDIR, ROOT, &[&[0; 8]]).unwrap();
    let mut offset = 0_u64;
    let mut nodes = Vec::new();
    loop {
        // Room for one or two of them at a time.
        let parts = [&open[..8], &offset.to_le_bytes(), &330_u32.to_le_bytes(), &[0; 20]];
        let entries = guest.ask(opcode::READDIRPLUS, ROOT, &parts).unwrap();
        if entries.is_empty() {
            break;
        }
        let mut rest = &entries[..];
        while !rest.is_empty() {
            let (entry, dirent) = rest.split_at(128);
            offset = u64_at(dirent, 8);
            let len = u32::from_le_bytes(dirent[16..20].try_into().unwrap()) as usize;
            let name = String::from_utf8(dirent[24..24 + len].to_vec()).unwrap();
            // Node and size.
            nodes.push((name, u64_at(entry, 0), u64_at(entry, 48)));
            rest = &dirent[(24 + len).next_multiple_of(8)..];
        }
    }
    nodes.sort();
    let names: Vec<&str> = nodes.iter().map(|(name, ..)| &**name).collect();
    assert_eq!(names, [".", "..", "file", "folder", "link", "out", "up"]);
    assert!(nodes[..2].iter().all(|&(_, node, _)| node == NOENT));
    assert_eq!((nodes[2].1, nodes[2].2), (known, 8));
    // Each is a lookup, which the guest forgets as any.
    let (folder, twice) = (nodes[3].1, known);
    guest.0.tree.forget(folder, 1);
    assert_eq!(guest.ask(opcode::GETATTR, folder, &[&[0; 16]]), Err(116));
    guest.0.tree.forget(twice, 1);
    assert!(guest.ask(opcode::GETATTR, twice, &[&[0; 16]]).is_ok());
}

#[test]
fn no_name_leads_out_of_the_share() {
    let place = Place::new("out");
    let mut guest = place.guest(true);

    for name in ["..", ".", "", "../secret", "folder/../../secret", "/etc/passwd", "up/secret"] {
        assert_eq!(guest.look_up(ROOT, name), Err(22), "{name}");
    }
    for name in ["out", "up"] {
        let link = guest.look_up(ROOT, name).unwrap();
        assert_eq!(guest.open(link, 0), Err(40), "{name}");
        assert!(guest.look_up(link, "secret").is_err(), "{name}");
        assert!(guest.ask(opcode::OPENDIR, link, &[&[0; 8]]).is_err(), "{name}");
    }
    let made = [&2_u32.to_le_bytes()[..], &[0xff, 1, 0, 0], &[0; 8], b"out\0"];
    assert!(guest.ask(opcode::CREATE, ROOT, &made).is_err());
    assert_eq!(fs::read(place.0.join("secret")).unwrap(), b"secret");
}

#[test]
fn a_folder_that_the_host_replaces_by_a_link_leads_nowhere_else() {
    let place = Place::new("race");
    let mut guest = place.guest(true);
    let folder = guest.look_up(ROOT, "folder").unwrap();

    fs::rename(place.0.join("share/folder"), place.0.join("share/moved")).unwrap();
    symlink("..", place.0.join("share/folder")).unwrap();
    let made = [&1_u32.to_le_bytes()[..], &[0xa4, 1, 0, 0], &[0; 8], b"new\0"];
    guest.ask(opcode::CREATE, folder, &made).unwrap();

    assert!(place.0.join("share/moved/new").exists() && !place.0.join("new").exists());
}

#[test]
fn nothing_of_a_readonly_share_changes() {
    let place = Place::new("readonly");
    let mut guest = place.guest(false);
    let file = guest.look_up(ROOT, "file").unwrap();

    assert_eq!(guest.open(file, 1), Err(30));
    assert_eq!(guest.open(file, 2), Err(30));
    for (opcode, node, parts) in [
        (opcode::MKDIR, ROOT, vec![&[0; 8][..], b"new\0"]),
        (opcode::MKNOD, ROOT, vec![&0o100644_u32.to_le_bytes()[..], &[0; 12], b"new\0"]),
        (opcode::SYMLINK, ROOT, vec![b"new\0x\0"]),
        (opcode::UNLINK, ROOT, vec![b"file\0"]),
        (opcode::RMDIR, ROOT, vec![b"folder\0"]),
        (opcode::RENAME, ROOT, vec![&ROOT.to_le_bytes(), b"file\0new\0"]),
        (opcode::LINK, ROOT, vec![&file.to_le_bytes(), b"new\0"]),
        (opcode::CREATE, ROOT, vec![&[0; 16], b"new\0"]),
        (opcode::SETATTR, file, vec![&8_u32.to_le_bytes(), &[0; 84]]),
    ] {
        assert_eq!(guest.ask(opcode, node, &parts), Err(30), "{opcode}");
    }
}

#[test]
fn a_writable_share_is_changed_as_asked() {
    let place = Place::new("write");
    let share = place.0.join("share");
    let mut guest = place.guest(true);

    let made = [&1_u32.to_le_bytes()[..], &0o100640_u32.to_le_bytes(), &[0; 8], b"new\0"];
    let made = guest.ask(opcode::CREATE, ROOT, &made).unwrap();
    let (node, handle) = (u64_at(&made, 0), u64_at(&made, 128));
    let write = [&handle.to_le_bytes()[..], &4_u64.to_le_bytes(), &3_u32.to_le_bytes(), &[0; 20]];
    guest.ask(opcode::WRITE, node, &[&write.concat(), b"end"]).unwrap();
    assert_eq!(fs::read(share.join("new")).unwrap(), b"\0\0\0\0end");

    let renamed = [&ROOT.to_le_bytes()[..], b"new\0file\0"];
    guest.ask(opcode::RENAME, ROOT, &renamed).unwrap();
    guest.ask(opcode::MKDIR, ROOT, &[&0o750_u32.to_le_bytes(), &[0; 4], b"made\0"]).unwrap();
    guest.ask(opcode::SYMLINK, ROOT, &[b"pointer\0file\0"]).unwrap();
    guest.ask(opcode::LINK, ROOT, &[&node.to_le_bytes(), b"second\0"]).unwrap();
    guest.ask(opcode::UNLINK, ROOT, &[b"link\0"]).unwrap();
    guest.ask(opcode::RMDIR, ROOT, &[b"folder\0"]).unwrap();
    let mut attributes = [0; 88];
    attributes[0..4].copy_from_slice(&(set_mode_size_mtime()).to_le_bytes());
    attributes[16..24].copy_from_slice(&2_u64.to_le_bytes());
    attributes[40..48].copy_from_slice(&1000_u64.to_le_bytes());
    attributes[68..72].copy_from_slice(&0o100600_u32.to_le_bytes());
    guest.ask(opcode::SETATTR, node, &[&attributes]).unwrap();

    let names = [".", "..", "file", "made", "out", "pointer", "second", "up"];
    assert_eq!(guest.names(ROOT), names);
    let found = fs::metadata(share.join("second")).unwrap();
    assert_eq!((found.permissions().mode() & 0o777, found.len()), (0o600, 2));
    assert_eq!(std::os::unix::fs::MetadataExt::mtime(&found), 1000);
    assert_eq!(fs::read_link(share.join("pointer")).unwrap(), PathBuf::from("file"));
}

fn set_mode_size_mtime() -> u32 {
    use crate::abi::set::{MODE, MTIME, SIZE};
    MODE | SIZE | MTIME
}

#[test]
fn times_are_set_of_links_of_pipes_and_of_what_nobody_may_open() {
    let place = Place::new("times");
    let share = place.0.join("share");
    fs::set_permissions(share.join("file"), fs::Permissions::from_mode(0o000)).unwrap();
    let mut guest = place.guest(true);
    let pipe = [&0o010666_u32.to_le_bytes()[..], &[0; 12], b"pipe\0"];
    guest.ask(opcode::MKNOD, ROOT, &pipe).unwrap();
    let mut attributes = [0; 88];
    attributes[0..4].copy_from_slice(&crate::abi::set::MTIME.to_le_bytes());
    attributes[40..48].copy_from_slice(&1000_u64.to_le_bytes());

    for name in ["out", "pipe", "file", "folder"] {
        let node = guest.look_up(ROOT, name).unwrap();
        guest.ask(opcode::SETATTR, node, &[&attributes]).unwrap();

        let found = fs::symlink_metadata(share.join(name)).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mtime(&found), 1000, "{name}");
    }
    let secret = fs::metadata(place.0.join("secret")).unwrap();
    assert!(std::os::unix::fs::MetadataExt::mtime(&secret) > 1000);
}

#[test]
fn devices_are_neither_made_nor_opened() {
    let place = Place::new("devices");
    let mut guest = place.guest(true);

    let device = [&0o020666_u32.to_le_bytes()[..], &0x103_u32.to_le_bytes(), &[0; 8], b"null\0"];
    assert_eq!(guest.ask(opcode::MKNOD, ROOT, &device), Err(1));
    let pipe = [&0o010666_u32.to_le_bytes()[..], &[0; 12], b"pipe\0"];
    let entry = guest.ask(opcode::MKNOD, ROOT, &pipe).unwrap();

    // It would wait for a writer.
    assert_eq!(guest.open(u64_at(&entry, 0), 0), Err(6));
}

#[test]
fn shares_are_folders_of_one_root() {
    let place = Place::new("several");
    let folder = |name: &str| OwnedFd::from(File::open(place.0.join(name)).unwrap());
    let shares = vec![
        Share::new("fixed", folder("share"), false),
        Share::new("loose", folder("share/folder"), true),
    ];
    let mut guest = Guest::new(shares, true);

    assert_eq!(guest.names(ROOT), [".", "..", "fixed", "loose"]);
    let fixed = guest.look_up(ROOT, "fixed").unwrap();
    let loose = guest.look_up(ROOT, "loose").unwrap();
    assert!(guest.look_up(fixed, "file").unwrap() != NOENT);
    assert_eq!(guest.look_up(ROOT, "other").unwrap(), NOENT);
    let made = |name: &'static [u8]| [&[0; 8][..], name];
    assert_eq!(guest.ask(opcode::MKDIR, ROOT, &made(b"a\0")), Err(30));
    assert_eq!(guest.ask(opcode::MKDIR, fixed, &made(b"a\0")), Err(30));
    guest.ask(opcode::MKDIR, loose, &made(b"a\0")).unwrap();
    let across = [&loose.to_le_bytes()[..], b"file\0file\0"];
    assert_eq!(guest.ask(opcode::RENAME, fixed, &across), Err(30));
}

#[test]
fn a_forgotten_node_is_gone_and_others_stay() {
    let place = Place::new("forget");
    let mut guest = place.guest(false);
    let file = guest.look_up(ROOT, "file").unwrap();
    assert_eq!(guest.look_up(ROOT, "file").unwrap(), file);

    let forget = |guest: &mut Guest, lookups: u64| {
        let mut request = Vec::new();
        request.put32(IN_HEADER as u32 + 8);
        request.put32(opcode::FORGET);
        request.put64(1);
        request.put64(file);
        request.resize(IN_HEADER, 0);
        request.put64(lookups);
        let mut reply = vec![1];
        guest.0.answer(&request, 4096, &mut reply);
        assert!(reply.is_empty());
    };
    forget(&mut guest, 1);
    assert!(guest.open(file, 0).is_ok());
    forget(&mut guest, u64::MAX);

    assert_eq!(guest.open(file, 0), Err(116));
}

#[test]
fn more_files_than_may_be_open_are_found_again() {
    let place = Place::new("many");
    let share = place.0.join("share");
    fs::create_dir(share.join("folder/deep")).unwrap();
    for number in 0..100 {
        fs::write(share.join(format!("folder/deep/{number}")), number.to_string()).unwrap();
    }
    let mut guest = place.guest(true);
    guest.0 = guest.0.with_nodes_open(8);
    let folder = guest.look_up(ROOT, "folder").unwrap();
    let deep = guest.look_up(folder, "deep").unwrap();
    let files: Vec<u64> =
        (0..100).map(|number| guest.look_up(deep, &number.to_string()).unwrap()).collect();

    // All of them at another place, by the guest's own doing; one by the host's.
    guest.ask(opcode::RENAME, ROOT, &[&ROOT.to_le_bytes(), b"folder\0moved\0"]).unwrap();
    fs::remove_file(share.join("moved/deep/7")).unwrap();
    fs::write(share.join("another"), "another").unwrap();
    fs::rename(share.join("another"), share.join("moved/deep/7")).unwrap();

    for (number, &file) in files.iter().enumerate() {
        let opened = guest.open(file, 0);
        if number == 7 {
            assert_eq!(opened, Err(116));
            continue;
        }
        let read = guest.read(opened.unwrap()).unwrap();
        assert_eq!(read, number.to_string().as_bytes());
    }
}

/// A guest whose server keeps few files open.
fn crowded(place: &Place, limit: usize) -> Guest {
    let mut guest = place.guest(true);
    guest.0.tree.limit(limit);
    guest
}

#[test]
fn folders_that_are_exchanged_are_found_where_they_are_now() {
    let place = Place::new("exchange");
    fs::create_dir_all(place.0.join("share/folder/inner")).unwrap();
    fs::create_dir(place.0.join("share/other")).unwrap();
    let mut guest = crowded(&place, 4);
    let outer = guest.look_up(ROOT, "folder").unwrap();
    let inner = guest.look_up(outer, "inner").unwrap();
    let other = guest.look_up(ROOT, "other").unwrap();

    // OTHER takes the place of INNER, and INNER that of OTHER, which FOLDER then goes into.
    let exchange = |into: u64, names: &[u8]| {
        [&into.to_le_bytes()[..], &2_u32.to_le_bytes(), &[0; 4], names].concat()
    };
    guest.ask(opcode::RENAME2, ROOT, &[&exchange(outer, b"other\0inner\0")]).unwrap();
    guest.ask(opcode::RENAME, ROOT, &[&other.to_le_bytes()[..], b"folder\0never\0"]).unwrap_err();
    guest.ask(opcode::RENAME, ROOT, &[&inner.to_le_bytes()[..], b"folder\0folder\0"]).unwrap();
    for n in 0..20 {
        fs::write(place.0.join(format!("share/{n}")), "").unwrap();
        guest.look_up(ROOT, &n.to_string()).unwrap();
    }

    for node in [outer, inner, other] {
        assert!(guest.ask(opcode::GETATTR, node, &[&[0; 16]]).is_ok(), "{node}");
    }
    assert_eq!(guest.names(outer), [".", "..", "inner"]);
}

#[test]
fn a_file_is_found_again_however_deep_it_is() {
    const DEPTH: usize = 3000;
    let place = Place::new("deep");
    let find = || {
        let mut guest = crowded(&place, 8);
        let mut node = ROOT;
        for _ in 0..DEPTH {
            let parts = [&0o755_u32.to_le_bytes()[..], &[0; 4], b"d\0"];
            node = u64_at(&guest.ask(opcode::MKDIR, node, &parts).unwrap(), 0);
        }
        for number in 0..20 {
            fs::write(place.0.join(format!("share/{number}")), "").unwrap();
            guest.look_up(ROOT, &number.to_string()).unwrap();
        }
        guest.ask(opcode::GETATTR, node, &[&[0; 16]]).unwrap();
    };
    std::thread::scope(|scope| {
        // A stack that recursion of this depth would leave.
        let small = std::thread::Builder::new().stack_size(192 << 10);
        small.spawn_scoped(scope, find).unwrap().join().unwrap();
    });
}

#[test]
fn a_guest_makes_no_program_that_runs_with_the_rights_of_this_user() {
    let place = Place::new("setuid");
    let mut guest = place.guest(true);
    let mode = 0o6755_u32;

    let made = guest.ask(
        opcode::CREATE,
        ROOT,
        &[&[2, 0, 0, 0][..], &mode.to_le_bytes(), &[0; 8], b"new\0"],
    );
    let new = u64_at(&made.unwrap(), 0);
    let mut change = vec![0; 88];
    change[..4].copy_from_slice(&crate::abi::set::MODE.to_le_bytes());
    change[68..72].copy_from_slice(&mode.to_le_bytes());
    guest.ask(opcode::SETATTR, new, &[&change]).unwrap();

    let found = fs::metadata(place.0.join("share/new")).unwrap();
    assert_eq!(found.permissions().mode() & 0o7777, 0o755);
}

#[test]
fn a_reply_with_entries_is_as_long_as_any_other_at_most() {
    let place = Place::new("entries");
    for n in 0..6000 {
        fs::write(place.0.join(format!("share/folder/{n:032}")), "").unwrap();
    }
    let mut guest = place.guest(false);
    let folder = guest.look_up(ROOT, "folder").unwrap();
    let open = guest.ask(opcode::OPENDIR, folder, &[&[0; 8]]).unwrap();

    let parts = [&open[..8], &[0; 8], &u32::MAX.to_le_bytes(), &[0; 20]];
    let entries = guest.ask(opcode::READDIR, folder, &parts).unwrap();

    assert!((1..=MAX_IO as usize).contains(&entries.len()), "{}", entries.len());
}

#[test]
fn wild_requests_change_nothing_outside_and_stop_nothing() {
    let place = Place::new("wild");
    let mut guest = place.guest(true);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let names = ["..", "up", "out", "secret", "file", "folder", "link", "a/b", "../secret", "x"];

    for _ in 0..100_000 {
        let mut body: Vec<u8> = (0..random() % 5 * 8).map(|_| (random() % 4) as u8).collect();
        for _ in 0..random() % 3 {
            body.extend(names[(random() % 10) as usize].as_bytes());
            body.push(0);
        }
        let opcode = match (random() % 50) as u32 {
            // Those without a reply, whose effect is none.
            opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => opcode::LOOKUP,
            opcode => opcode,
        };
        let room = if random() % 8 == 0 { 16 + random() % 200 } else { 1 << 17 };
        let _ = guest.ask_in(room as usize, opcode, random() % 20, &[&body]);
    }

    assert_eq!(fs::read(place.0.join("secret")).unwrap(), b"secret");
    let mut beside: Vec<_> =
        fs::read_dir(&place.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    beside.sort();
    assert_eq!(beside, ["secret", "share"]);
}
