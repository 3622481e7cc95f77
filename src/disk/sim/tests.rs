//! The simulated disk against the rules that it states: what survives always, what may, and what never does.

use std::collections::BTreeSet;

use super::*;

fn read(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(path).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

/// All that `look` sees after many different power cuts.
fn outcomes<T: Ord>(disk: &SimDisk, look: impl Fn(&SimDisk) -> T) -> BTreeSet<T> {
    (0..200).map(|seed| look(&disk.crash(seed))).collect()
}

#[test]
fn synced_bytes_under_a_synced_name_survive_every_crash() {
    let disk = SimDisk::new();
    let file = disk.create("f").unwrap();
    file.write_all_at(&[7; 3000], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir("").unwrap();
    assert_eq!(outcomes(&disk, |disk| read(disk, "f")), BTreeSet::from([Some(vec![7; 3000])]));
}

#[test]
fn unsynced_sectors_survive_each_by_itself() {
    let disk = SimDisk::new();
    let file = disk.create("f").unwrap();
    file.write_all_at(&[1; 1024], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir("").unwrap();
    file.write_all_at(&[2; 1024], 0).unwrap();
    let sectors = |disk: &SimDisk| read(disk, "f").map(|bytes| (bytes[0], bytes[511], bytes[512], bytes[1023]));
    let all = [(1, 1, 1, 1), (1, 1, 2, 2), (2, 2, 1, 1), (2, 2, 2, 2)].map(Some);
    assert_eq!(outcomes(&disk, sectors), BTreeSet::from(all));
    assert_eq!(read(&disk.kill(), "f"), Some(vec![2; 1024]));
}

#[test]
fn an_unsynced_length_lies_anywhere_between_old_and_new() {
    let disk = SimDisk::new();
    let file = disk.create("f").unwrap();
    disk.sync_dir("").unwrap();
    file.set_len(10).unwrap();
    let lengths = outcomes(&disk, |disk| read(disk, "f").unwrap().len());
    assert!(lengths.len() > 5 && lengths.contains(&0) && lengths.contains(&10), "{lengths:?}");
}

#[test]
fn names_need_their_directory_and_its_parents_synced() {
    let disk = SimDisk::new();
    disk.create_dir("d").unwrap();
    disk.create("d/f").unwrap().sync_data().unwrap();
    let there = |disk: &SimDisk| disk.open("d/f").is_ok();
    assert_eq!(outcomes(&disk, there), BTreeSet::from([false, true]));
    disk.sync_dir("d").unwrap();
    assert_eq!(outcomes(&disk, there), BTreeSet::from([false, true]));
    disk.sync_dir("").unwrap();
    assert_eq!(outcomes(&disk, there), BTreeSet::from([true]));
    disk.remove("d/f").unwrap();
    assert_eq!(outcomes(&disk, there), BTreeSet::from([false, true]));
    disk.sync_dir("d").unwrap();
    assert_eq!(outcomes(&disk, there), BTreeSet::from([false]));
}

#[test]
fn a_rename_in_one_directory_is_atomic_and_between_two_is_not() {
    let disk = SimDisk::new();
    disk.create_dir("d").unwrap();
    disk.create("a").unwrap();
    disk.sync_dir("").unwrap();
    let names = |disk: &SimDisk| ["a", "b", "d/c"].map(|path| disk.open(path).is_ok());
    disk.rename("a", "b").unwrap();
    assert_eq!(outcomes(&disk, names), BTreeSet::from([[true, false, false], [false, true, false]]));
    disk.sync_dir("").unwrap();
    disk.rename("b", "d/c").unwrap();
    disk.sync_dir("d").unwrap();
    assert_eq!(outcomes(&disk, names), BTreeSet::from([[false, true, true], [false, false, true]]));
}

#[test]
fn after_a_failed_sync_the_next_one_succeeds_and_has_saved_nothing() {
    let disk = SimDisk::new();
    let file = disk.create("f").unwrap();
    disk.sync_dir("").unwrap();
    file.write_all_at(&[1; 600], 0).unwrap();
    disk.fail(Call::SyncData, 1, Failure::Io);
    assert!(file.sync_data().is_err());
    assert_eq!(read(&disk, "f"), Some(vec![1; 600]));
    file.sync_data().unwrap();
    assert_eq!(outcomes(&disk, |disk| read(disk, "f")), BTreeSet::from([Some(vec![0; 600])]));
}

#[test]
fn a_fault_strikes_the_nth_call_once_and_a_failed_write_is_short() {
    let disk = SimDisk::new();
    let file = disk.create("f").unwrap();
    disk.fail(Call::Write, 2, Failure::Full);
    file.write_all_at(b"abcd", 0).unwrap();
    let error = file.write_all_at(b"efgh", 4).unwrap_err();
    assert!(crate::disk::is_full(&error));
    assert_eq!(read(&disk, "f"), Some(b"abcdef".to_vec()));
    file.write_all_at(b"efgh", 4).unwrap();
    for (call, act) in [(Call::SyncDir, disk.sync_dir("") as io::Result<()>), (Call::Allocate, file.allocate(0, 1))] {
        assert!(act.is_ok(), "{call:?}");
    }
    disk.fail(Call::SyncDir, 1, Failure::Io);
    assert!(disk.sync_dir("").is_err());
    disk.fail(Call::Allocate, 1, Failure::Io);
    assert!(file.allocate(0, 1).is_err());
}

#[test]
fn a_full_disk_takes_what_fits_and_gives_room_back_when_files_go() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(10));
    let file = disk.create("f").unwrap();
    file.allocate(0, 6).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 4);
    let other = disk.create("g").unwrap();
    assert!(other.write_all_at(b"123456", 0).is_err());
    assert_eq!(read(&disk, "g"), Some(b"1234".to_vec()));
    assert!(other.allocate(0, 5).is_err());
    file.write_all_at(b"123456", 0).unwrap();
    disk.remove("f").unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 6);
}

#[test]
fn a_punch_is_lost_done_or_partly_done_by_a_crash_and_certain_after_a_sync() {
    let disk = SimDisk::new();
    let file = disk.create("f").unwrap();
    file.write_all_at(&[7; 1500], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir("").unwrap();
    file.punch(500, 600).unwrap();
    let expected = [vec![7; 500], vec![0; 600], vec![7; 400]].concat();
    assert_eq!(read(&disk, "f"), Some(expected.clone()));
    let zeros = |disk: &SimDisk| read(disk, "f").unwrap().iter().filter(|&&byte| byte == 0).count();
    // 12 bytes of the first sector, all 512 of the second, 76 of the third.
    assert_eq!(outcomes(&disk, zeros), BTreeSet::from([0, 12, 76, 88, 512, 524, 588, 600]));
    file.sync_data().unwrap();
    assert_eq!(outcomes(&disk, |disk| read(disk, "f")), BTreeSet::from([Some(expected)]));
    disk.fail(Call::Punch, 1, Failure::Io);
    assert!(file.punch(0, 100).is_err());
    assert_eq!(zeros(&disk), 650);
}

#[test]
fn whole_punched_blocks_are_given_back_until_they_are_written_again() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(20_000));
    let file = disk.create("f").unwrap();
    file.write_all_at(&[7; 18_000], 0).unwrap();
    let check = |act: &dyn Fn(), allocated: u64, free: u64| {
        act();
        assert_eq!((file.allocated_bytes().unwrap(), disk.free_bytes().unwrap()), (allocated, free));
    };
    check(&|| (), 20_480, 2_000);
    check(&|| file.punch(1, 8_190).unwrap(), 20_480, 2_000);
    check(&|| file.punch(4_095, 4_097).unwrap(), 16_384, 6_096);
    check(&|| file.punch(16_384, 1 << 20).unwrap(), 12_288, 10_192);
    check(&|| file.write_all_at(b"x", 5_000).unwrap(), 16_384, 6_096);
    check(&|| file.set_len(4_096).unwrap(), 4_096, 15_904);
    assert_eq!(file.len().unwrap(), 4_096);
}

#[test]
fn without_power_every_call_fails() {
    let disk = SimDisk::new();
    let file = disk.create("f").unwrap();
    disk.power_off_after(1);
    file.write_all_at(b"a", 0).unwrap();
    assert!(file.write_all_at(b"b", 1).is_err());
    assert!(file.read_at(&mut [0], 0).is_err());
    assert!(disk.open("f").is_err());
    assert_eq!(read(&disk.kill(), "f"), Some(b"a".to_vec()));
}

#[test]
fn a_lock_is_held_until_dropped_and_not_over_a_crash() {
    let disk = SimDisk::new();
    let held = disk.lock("lock").unwrap();
    assert!(held.is_some());
    assert!(disk.lock("lock").unwrap().is_none());
    assert!(disk.crash(0).lock("lock").unwrap().is_some());
    drop(held);
    assert!(disk.lock("lock").unwrap().is_some());
}

#[test]
fn a_fault_that_lasts_strikes_until_it_is_healed() {
    let disk = SimDisk::new();
    let file = disk.create("f").unwrap();
    disk.fail_from(Call::Write, 2, Failure::Short);
    file.write_all_at(b"abc", 0).unwrap();
    assert_eq!(disk.faults_to_come(), 1);
    assert!(file.write_all_at(b"xyz", 0).is_err());
    assert_eq!((read(&disk, "f"), disk.faults_to_come()), (Some(b"xyc".to_vec()), 0));
    assert!(disk.is_failing());
    assert!(file.write_all_at(b"xyz", 0).is_err());
    disk.heal();
    assert!(!disk.is_failing());
    file.write_all_at(b"xyz", 0).unwrap();
    disk.fail(Call::Read, 1, Failure::Short);
    assert_eq!(file.read_at(&mut [0; 3], 0).unwrap(), 2);
}

#[test]
fn pages_of_a_failed_sync_are_forgotten_in_the_end_and_dirty_ones_are_not() {
    let disk = SimDisk::new();
    let file = disk.create("f").unwrap();
    file.write_all_at(&[1; 1_024], 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(&[2; 512], 0).unwrap();
    disk.fail(Call::SyncData, 1, Failure::Io);
    assert!(file.sync_data().is_err());
    file.write_all_at(&[3; 512], 512).unwrap();
    assert_eq!(read(&disk, "f"), Some([[2; 512], [3; 512]].concat()));
    disk.evict();
    assert_eq!(read(&disk, "f"), Some([[1; 512], [3; 512]].concat()));
}

#[test]
fn what_is_not_synced_is_counted() {
    let disk = SimDisk::new();
    let file = disk.create("f").unwrap();
    file.write_all_at(&[1; 600], 0).unwrap();
    // Two sectors, the length, the name.
    assert_eq!((disk.unsynced(), disk.has_power()), (4, true));
    file.sync_data().unwrap();
    disk.sync_dir("").unwrap();
    assert_eq!(disk.unsynced(), 0);
    disk.power_off_after(0);
    assert!(!disk.has_power());
}
