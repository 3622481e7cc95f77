//! Several threads at once, so that batches hold many requests that see each other.
//!
//! Each thread has repositories of its own, so that it knows every answer; content, organisations and segments are shared.

use super::{
    items::{self, Item},
    machine::{End, IndexAfter, Machine},
    model::{Model, Step},
    random::{Seed, rounds},
    steps::act,
};

const NAMES: [[&str; 2]; 6] =
    [["a/1", "b/1"], ["a/2", "b/2"], ["a/3", "c/3"], ["a/4", "b/4/x"], ["one", "a/5"], ["two", "b/6"]];
const STEPS: usize = 120;

#[test]
fn threads_that_share_content_keep_their_own_repositories_right() {
    for seed in rounds(10) {
        let _seed = Seed(seed);
        let mut random = fastrand::Rng::with_seed(seed);
        let items = items::random(&mut random);
        let mut machine = Machine::new();
        let mut model = Model::default();
        for _ in 0..3 {
            let models: Vec<Model> = std::thread::scope(|scope| {
                let (machine, items, model) = (&machine, &items, &model);
                let threads = NAMES.map(|names| {
                    let random = fastrand::Rng::with_seed(random.u64(..));
                    scope.spawn(move || one_thread(machine, items, part(model, names), names, random))
                });
                threads.map(|thread| thread.join().unwrap()).into()
            });
            model.repositories = models.into_iter().flat_map(|model| model.repositories).collect();
            let before = machine.dump();
            let end = if random.bool() { End::Kill } else { |after| End::PowerCut(1, after) };
            machine.end(end(if random.bool() { IndexAfter::Lost } else { IndexAfter::Flushed }));
            machine.open().unwrap();
            assert_eq!(machine.dump(), before);
            assert_eq!(model.difference(&items, NAMES.as_flattened(), machine.registry()), Ok(()));
            machine.check();
            machine.flush_index();
        }
    }
}

fn part(model: &Model, names: [&str; 2]) -> Model {
    let mut part = model.clone();
    part.repositories.retain(|name, _| names.contains(&name.as_str()));
    part
}

fn one_thread(
    machine: &Machine,
    items: &[Item],
    mut model: Model,
    names: [&str; 2],
    mut random: fastrand::Rng,
) -> Model {
    for _ in 0..STEPS {
        let step = random_step(machine, items, names, &mut random);
        let answer = act(machine, items, &model, &step);
        assert_eq!(answer, model.step(items, &step), "{step:?}");
    }
    model
}

fn random_step(machine: &Machine, items: &[Item], names: [&str; 2], random: &mut fastrand::Rng) -> Step {
    let blobs = items.iter().take_while(|item| item.document.is_none()).count();
    let repository = names[random.usize(..2)].to_owned();
    let item = random.usize(..blobs);
    let manifest = random.usize(blobs..items.len());
    match random.u8(..12) {
        0..4 => Step::Put { repository, item },
        4 => Step::Mount { repository, item, from: Some(names[random.usize(..2)].to_owned()) },
        5 => {
            let live = machine.is_named_live(&repository, &items[item].digest);
            Step::DeleteBlob { repository, item, live }
        }
        6 => Step::Delete { repository, reference: "latest".to_owned() },
        7 => Step::Delete { repository, reference: items[manifest].digest.to_string() },
        _ => {
            let expected = Some(items[manifest].digest);
            let media_type = items[manifest].document.as_ref().unwrap().media_type;
            let tags = (0..random.usize(..3)).map(|at| ["latest", "1.0"][at].to_owned()).collect();
            Step::Push { repository, item: manifest, media_type, tags, expected }
        }
    }
}
