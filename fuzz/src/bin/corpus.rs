//! Inputs between their forms: `corpus unpack TARGET DIRECTORY` writes seeds and what was kept, one file each, and a
//! dictionary beside the directory; `corpus pack DIRECTORY FILE BYTES` keeps the smallest files up to so many bytes.

use std::{error::Error, fs, path::Path};

use orlop::fuzzing;

// libFuzzer has a `main` of its own, which the linker takes only when a program has none.
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["targets"] => fuzzing::TARGETS.iter().for_each(|target| println!("{}", target.name)),
        ["unpack", target, directory] => unpack(target, Path::new(directory))?,
        ["pack", directory, file, bytes] => pack(Path::new(directory), Path::new(file), bytes.parse()?)?,
        _ => return Err("usage: corpus targets | unpack TARGET DIRECTORY | pack DIRECTORY FILE BYTES".into()),
    }
    Ok(())
}

fn unpack(target: &str, directory: &Path) -> Result<(), Box<dyn Error>> {
    let target = orlop_fuzz::target(target);
    fs::create_dir_all(directory)?;
    let seeds = (target.seeds)();
    let kept = fuzzing::unpack(target.corpus);
    for (number, input) in seeds.iter().map(Vec::as_slice).chain(kept).enumerate() {
        fs::write(directory.join(format!("kept-{number:05}")), input)?;
    }
    let quoted = |word: &&str| -> String {
        let bytes: String = word.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
        format!("\"{bytes}\"\n")
    };
    fs::write(directory.with_extension("words"), target.words.iter().map(quoted).collect::<String>())?;
    Ok(())
}

fn pack(directory: &Path, file: &Path, bytes_max: usize) -> Result<(), Box<dyn Error>> {
    let mut inputs = fs::read_dir(directory)?.map(|entry| fs::read(entry?.path())).collect::<Result<Vec<_>, _>>()?;
    inputs.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    inputs.dedup();
    let mut bytes = 0;
    let few = inputs.iter().take_while(|input| {
        bytes += input.len() + 4;
        bytes <= bytes_max
    });
    fs::write(file, fuzzing::pack(few.map(Vec::as_slice)))?;
    Ok(())
}
