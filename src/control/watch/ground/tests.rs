use std::os::unix::fs::symlink;

use rustix::io::Errno;
use tempfile::TempDir;

use super::*;
use crate::config::Recorder;
use crate::control::watch::inotify::Inotify;

/// A directory with files in it, and what is followed there.
struct Field {
    directory: TempDir,
    inotify: Inotify,
    ground: Ground,
}

impl Field {
    /// Follows `file`, once `make` has made the ground.
    fn following(file: &str, make: impl FnOnce(&Path)) -> Self {
        Self::of(make, |recorder, directory| drop(recorder.file(&directory.join(file), 1000)))
    }

    /// Follows what `pattern` matches.
    fn matching(pattern: &str, make: impl FnOnce(&Path)) -> Self {
        Self::of(make, |recorder, directory| {
            drop(recorder.matching(directory.join(pattern).to_str().expect("a pattern")));
        })
    }

    fn of(make: impl FnOnce(&Path), read: impl FnOnce(&Recorder<'_>, &Path)) -> Self {
        // In memory where that can be had: a disk would make thousands of changes slow.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        make(directory.path());
        let recorder = Recorder::new(&System);
        read(&recorder, directory.path());
        let inotify = Inotify::new().expect("one more");
        let ground = Ground::survey(&recorder.into_reading(), |path, mark| inotify.watch(path, mark));
        Self { directory, inotify, ground }
    }

    /// Whether a change is told as one that matters.
    fn sees(&self, change: impl FnOnce(&Path)) -> bool {
        while self.inotify.any(|_| false).is_ok() {}
        change(self.directory.path());
        let mut seen = false;
        while let Ok(matters) = self.inotify.any(|told| self.ground.concerns(told)) {
            seen |= matters;
        }
        seen
    }
}

fn write(path: impl AsRef<Path>) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    fs::write(path, "x").expect("written");
}

fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    fs::rename(from, to).expect("renamed");
}

fn link(to: &str, at: impl AsRef<Path>) {
    let at = at.as_ref();
    fs::create_dir_all(at.parent().expect("a parent")).expect("made");
    symlink(to, at).expect("linked");
}

#[test]
fn a_file_is_followed_however_it_is_changed() {
    let here = |directory: &Path| write(directory.join("tls/site.pem"));
    let changes: [fn(&Path); 5] = [
        |directory| write(directory.join("tls/site.pem")),
        |directory| fs::remove_file(directory.join("tls/site.pem")).expect("removed"),
        |directory| {
            write(directory.join("tls/new"));
            rename(directory.join("tls/new"), directory.join("tls/site.pem"));
        },
        |directory| rename(directory.join("tls"), directory.join("tls.old")),
        |directory| {
            let mut permissions = fs::metadata(directory.join("tls/site.pem")).expect("there").permissions();
            permissions.set_readonly(true);
            fs::set_permissions(directory.join("tls/site.pem"), permissions).expect("set");
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert!(Field::following("tls/site.pem", here).sees(change), "change {number}");
    }
}

#[test]
fn what_is_none_of_it_is_not_heeded() {
    let field = Field::following("tls/site.pem", |directory| {
        write(directory.join("tls/site.pem"));
        write(directory.join("access.log"));
    });
    assert!(!field.sees(|directory| {
        write(directory.join("access.log"));
        write(directory.join("tls/.site.pem.swp"));
        write(directory.join("tls/other.pem"));
        fs::read(directory.join("tls/site.pem")).expect("read");
        fs::remove_file(directory.join("tls/other.pem")).expect("removed");
        rename(directory.join("access.log"), directory.join("access.log.1"));
    }));
}

#[test]
fn a_file_that_is_missing_is_waited_for_with_its_directories() {
    let field = Field::following("tls/live/site.pem", |_| {});
    assert!(!field.sees(|directory| write(directory.join("other/live/site.pem"))));
    assert!(field.sees(|directory| write(directory.join("tls/live/site.pem"))));
}

#[test]
fn every_link_on_the_way_is_followed() {
    let certbot = |directory: &Path| {
        write(directory.join("archive/site1.pem"));
        write(directory.join("archive/site2.pem"));
        link("../archive/site1.pem", directory.join("live/site.pem"));
        link("live", directory.join("current"));
    };
    let changes: [fn(&Path); 3] = [
        // As certbot does.
        |directory| {
            link("../archive/site2.pem", directory.join("live/new"));
            rename(directory.join("live/new"), directory.join("live/site.pem"));
        },
        |directory| write(directory.join("archive/site1.pem")),
        |directory| {
            link("other", directory.join("new"));
            rename(directory.join("new"), directory.join("current"));
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert!(Field::following("current/site.pem", certbot).sees(change), "change {number}");
    }
    assert!(
        !Field::following("current/site.pem", certbot).sees(|directory| write(directory.join("archive/site2.pem")))
    );
}

#[test]
fn the_link_that_kubernetes_swaps_is_followed() {
    let field = Field::following("tls.crt", |directory| {
        write(directory.join("..2026_01/tls.crt"));
        link("..2026_01", directory.join("..data"));
        link("..data/tls.crt", directory.join("tls.crt"));
    });
    assert!(!field.sees(|directory| {
        write(directory.join("..2026_02/tls.crt"));
        link("..2026_02", directory.join("..data_tmp"));
    }));
    assert!(field.sees(|directory| rename(directory.join("..data_tmp"), directory.join("..data"))));
}

#[test]
fn the_way_back_from_a_link_leads_to_its_real_parent() {
    let field = Field::following("far/../site.pem", |directory| {
        write(directory.join("site.pem"));
        write(directory.join("deep/site.pem"));
        fs::create_dir(directory.join("deep/down")).expect("made");
        link("deep/down", directory.join("far"));
    });
    assert!(!field.sees(|directory| write(directory.join("site.pem"))));
    assert!(field.sees(|directory| write(directory.join("deep/site.pem"))));
}

#[test]
fn links_in_a_circle_are_left() {
    let field = Field::following("one", |directory| {
        link("two", directory.join("one"));
        link("one", directory.join("two"));
    });
    assert!(field.sees(|directory| {
        write(directory.join("new"));
        rename(directory.join("new"), directory.join("two"));
    }));
}

#[test]
fn files_that_a_pattern_would_match_are_waited_for() {
    let made = |directory: &Path| write(directory.join("sites/a/conf.d/one.toml"));
    let changes: [fn(&Path); 4] = [
        |directory| write(directory.join("sites/a/conf.d/two.toml")),
        |directory| fs::remove_file(directory.join("sites/a/conf.d/one.toml")).expect("removed"),
        |directory| write(directory.join("sites/b/conf.d/one.toml")),
        |directory| rename(directory.join("sites"), directory.join("places")),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert!(Field::matching("sites/*/conf.d/*.toml", made).sees(change), "change {number}");
    }
    let field = Field::matching("conf.d/*.toml", |_| {});
    assert!(!field.sees(|directory| write(directory.join("other/one.toml"))));
    assert!(field.sees(|directory| write(directory.join("conf.d/one.toml"))));
}

#[test]
fn what_cannot_be_watched_is_known_and_the_rest_is_watched() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path().join("tls/site.pem"));
    let recorder = Recorder::new(&System);
    drop(recorder.file(&directory.path().join("tls/site.pem"), 1000));
    let reading = recorder.into_reading();
    let mut number = 0;
    let full = directory.path().join("tls");
    let ground = Ground::survey(&reading, |path, _| {
        number += 1;
        if path == full { Err(Errno::NOSPC.into()) } else { Ok(number) }
    });
    let unwatched: Vec<_> = ground.unwatched.iter().collect();
    assert_eq!(unwatched.len(), 1);
    assert_eq!(unwatched[0].0, &full);
    assert!(unwatched[0].1.contains("fs.inotify.max_user_watches"), "{unwatched:?}");
    assert!(ground.concerns(&Told::Itself(number)), "the file, though not its directory");
}

#[test]
fn more_changes_than_the_kernel_keeps_are_a_change() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("Linux");
    let limit: usize = limit.trim().parse().expect("a number");
    let field = Field::following("site.pem", |directory| write(directory.join("site.pem")));
    let trouble = |times: usize| {
        field.sees(|directory| {
            let other = directory.join("other");
            for _ in 0..times {
                fs::create_dir(&other).expect("made");
                fs::remove_dir(&other).expect("removed");
            }
        })
    };
    assert!(!trouble(10), "all of it is kept, and none of it matters");
    assert!(trouble(limit / 2 + 1));
}

#[test]
fn when_the_kernel_has_lost_count_everything_may_have_changed() {
    assert!(Ground::default().concerns(&Told::Overflow));
    assert!(!Ground::default().concerns(&Told::Itself(1)), "a watch that has been given up");
}
