//! Names as the inputs of a model with the encoder `ngram-fields`, for engines that are not the library's.
//!
//! `encode MODEL_DIR NAMES` reads names, each at the start of a line up to a tab, and writes to standard output, name after
//! name without anything between, the five inputs in the network's order and the machine's byte order.

use mlbridge::model::ngram::{Dictionary, Inputs};
use mlbridge::name::{MAX_WIRE, Name};
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::{env, fs, io};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(model), Some(names)) = (arguments.next(), arguments.next()) else {
        return Err("use: encode MODEL_DIR NAMES".into());
    };
    let dictionary = Dictionary::parse(&fs::read(Path::new(&model).join("dictionary.bin"))?)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in fs::read_to_string(names)?.lines() {
        let name: Name = line.split('\t').next().unwrap_or_default().parse()?;
        let mut buffer = [0; MAX_WIRE];
        let inputs = Inputs::of(&dictionary, name.dotted(&mut buffer));
        let rows = inputs.core.iter().chain(&inputs.sub).chain(&inputs.word);
        let numbers = inputs.inverse.iter().chain(&inputs.dense);
        let mut record: Vec<u8> = rows.flat_map(|row| row.to_ne_bytes()).collect();
        record.extend(numbers.flat_map(|number| number.to_ne_bytes()));
        out.write_all(&record)?;
    }
    out.flush()?;
    Ok(())
}
