//! An index that names very many manifests loses its tag, and gets it back, while the load goes on.
//!
//! Each of its manifests loses with it what it lived by, and the registry counts that in steps. It is those steps that
//! pushes have to share the committer with.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Collecting, Images, phases::Phases, phases::Row, tell};
use crate::{
    admin::Admin,
    content::digest_of,
    error::LoadError,
    measure::stock::{Manifests, NAMED_BLOBS, Stock, block},
    registry::MANIFEST_TYPE,
};

const ORGANISATION: &str = "index";
const REPOSITORY: &str = "index/large";
const TAG: &str = "latest";
const BLOB_BYTES: u64 = 500;
/// Between two looks at what is still to be counted.
const LOOK: Duration = Duration::from_millis(5);
/// Rest between two changes.
const REST: Duration = Duration::from_secs(2);
/// Longest that the counting may take before it counts as one that never ends.
const PATIENCE: Duration = Duration::from_secs(300);

impl Collecting {
    /// Pushes the index, then takes its tag away and gives it back.
    pub(super) fn settling(&self, images: &Images, wrong: &mut Vec<String>) -> Result<Vec<Row>, LoadError> {
        let index = self.push_children()?;
        let digest = digest_of(&index);
        let rate = self.rate(images, 11)?;
        let mut admin = Admin::new(&self.address);
        let phases = Phases::begin("before");
        let (times, paced) =
            self.loaded(images, rate, 2, || {
                thread::sleep(Duration::from_secs(self.seconds));
                let mut times = vec![timed(&phases, "index pushed", &mut admin, |admin| {
                    Ok(admin.put_index(REPOSITORY, TAG, &index)?)
                })?];
                for _ in 0..self.losses {
                    let untag = |admin: &mut Admin| Ok(admin.untag(REPOSITORY, TAG)?);
                    times.push(timed(&phases, "tag lost", &mut admin, untag)?);
                    let restore = |admin: &mut Admin| Ok(admin.restore(REPOSITORY, TAG, &digest)?);
                    times.push(timed(&phases, "tag back", &mut admin, restore)?);
                }
                Ok(times)
            })?;
        println!("\nan index of {} manifests, {} KiB:", self.children, index.len() >> 10);
        for (name, asked, settled) in times {
            println!(
                "{name}: answered in {:.1} ms, settled in {:.1} ms",
                asked.as_secs_f64() * 1e3,
                settled.as_secs_f64() * 1e3
            );
        }
        Ok(tell(&phases, &paced, wrong))
    }

    /// Pushes all that the index names; the index.
    fn push_children(&self) -> Result<Vec<u8>, LoadError> {
        let (stock, key) = (Stock::new(&block(), BLOB_BYTES), self.key(200));
        self.all(NAMED_BLOBS, |client, number| {
            let blob = stock.blob(key, number);
            let location = client.start_upload(REPOSITORY)?;
            Ok(client.finish_upload(&location, &blob, &blob.digest)?)
        })?;
        let manifests = Manifests::new(&stock, key);
        let began = Instant::now();
        self.all(self.children, |client, number| {
            Ok(client.put_manifest(REPOSITORY, &manifests.digest(key, number), &manifests.bytes(key, number))?)
        })?;
        println!("\n{} manifests pushed by digest in {:.1} s", self.children, began.elapsed().as_secs_f64());
        let children = (0..self.children).map(|number| {
            let bytes = manifests.bytes(key, number);
            json!({ "mediaType": MANIFEST_TYPE, "digest": digest_of(&bytes), "size": bytes.len() })
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": children.collect::<Vec<_>>(),
        });
        Ok(index.to_string().into_bytes())
    }
}

/// Does a change in a phase of its own, which lasts until its consequences are counted; how long the answer took, and all.
fn timed(
    phases: &Phases,
    name: &'static str,
    admin: &mut Admin,
    change: impl FnOnce(&mut Admin) -> Result<(), LoadError>,
) -> Result<(&'static str, Duration, Duration), LoadError> {
    phases.enter(name);
    let began = Instant::now();
    change(admin)?;
    let asked = began.elapsed();
    while !admin.is_settled(ORGANISATION)? {
        if began.elapsed() > PATIENCE {
            return Err(LoadError::Usage(format!("{name}: not settled after {} s", PATIENCE.as_secs())));
        }
        thread::sleep(LOOK);
    }
    let settled = began.elapsed();
    phases.enter("between");
    thread::sleep(REST);
    Ok((name, asked, settled))
}
