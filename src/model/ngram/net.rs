//! The network behind the encoder: table rows averaged by pool, then a small perceptron.
//!
//! `x` = the three pools (core, sub-domain, word; 16 numbers each), then the dense numbers.
//! `logit = out . relu(second . relu(first . x)) + skip . pools + bias`, the score its logistic function.
//! A pool is `(sum of its rows as integers) * scale * (1 / number of rows)`, multiplied from left to right.

use super::{DENSE, POOLS};
use crate::model::kernel::{dot, layer, relu};

/// Numbers a row holds.
pub const WIDTH: usize = 16;
/// Numbers the three pools give.
pub const POOLED: usize = POOLS * WIDTH;
/// Inputs of the first layer.
pub const INPUTS: usize = POOLED + DENSE;
/// Outputs of the first layer.
pub const HIDDEN: usize = 128;
/// Outputs of the second layer.
pub const SECOND: usize = 32;

/// The perceptron's weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Net {
    /// First layer, a row an input.
    pub first: [[f32; HIDDEN]; INPUTS],
    /// Its bias.
    pub first_bias: [f32; HIDDEN],
    /// Second layer, a row an input.
    pub second: [[f32; SECOND]; HIDDEN],
    /// Its bias.
    pub second_bias: [f32; SECOND],
    /// Output layer.
    pub out: [f32; SECOND],
    /// From the pools straight to the logit.
    pub skip: [f32; POOLED],
    /// The logit's bias.
    pub bias: [f32; 1],
}

/// How many parts [`Net::parts`] has.
pub const PARTS: usize = 7;

impl Net {
    /// All zero, on the heap.
    pub fn zero() -> Box<Net> {
        Box::new(Net {
            first: [[0.0; HIDDEN]; INPUTS],
            first_bias: [0.0; HIDDEN],
            second: [[0.0; SECOND]; HIDDEN],
            second_bias: [0.0; SECOND],
            out: [0.0; SECOND],
            skip: [0.0; POOLED],
            bias: [0.0],
        })
    }

    /// All numbers, part by part, in the order of the fields.
    pub fn parts(&self) -> [&[f32]; PARTS] {
        [
            self.first.as_flattened(),
            &self.first_bias,
            self.second.as_flattened(),
            &self.second_bias,
            &self.out,
            &self.skip,
            &self.bias,
        ]
    }

    /// As [`Net::parts`], to change them.
    pub fn parts_mut(&mut self) -> [&mut [f32]; PARTS] {
        [
            self.first.as_flattened_mut(),
            &mut self.first_bias,
            self.second.as_flattened_mut(),
            &mut self.second_bias,
            &mut self.out,
            &mut self.skip,
            &mut self.bias,
        ]
    }

    /// The logit of an input, and on the way what the two layers gave.
    #[inline(always)]
    pub fn forward<const FMA: bool>(&self, x: &[f32; INPUTS]) -> Pass {
        let mut first = layer::<FMA, INPUTS, HIDDEN>(x, &self.first, &self.first_bias);
        relu(&mut first);
        let mut second = layer::<FMA, HIDDEN, SECOND>(&first, &self.second, &self.second_bias);
        relu(&mut second);
        // No closure: it would be compiled without the caller's vector instructions.
        let direct = match x.first_chunk() {
            Some(pools) => dot::<FMA, POOLED>(pools, &self.skip),
            None => 0.0,
        };
        let [bias] = self.bias;
        let logit = bias + dot::<FMA, SECOND>(&second, &self.out) + direct;
        Pass { first, second, logit }
    }

    /// The logit's gradient by the inputs, at an input.
    pub fn gradient(&self, x: &[f32; INPUTS]) -> [f32; INPUTS] {
        let pass = self.forward::<false>(x);
        let mut to_second = [0.0; SECOND];
        for ((slope, &out), &weight) in to_second.iter_mut().zip(&pass.second).zip(&self.out) {
            *slope = if out > 0.0 { weight } else { 0.0 };
        }
        let mut to_first = [0.0; HIDDEN];
        for ((slope, &out), row) in to_first.iter_mut().zip(&pass.first).zip(&self.second) {
            *slope = if out > 0.0 { dot::<false, SECOND>(row, &to_second) } else { 0.0 };
        }
        let mut gradient = [0.0; INPUTS];
        for (slope, row) in gradient.iter_mut().zip(&self.first) {
            *slope = dot::<false, HIDDEN>(row, &to_first);
        }
        gradient.iter_mut().zip(&self.skip).for_each(|(slope, &direct)| *slope += direct);
        gradient
    }
}

/// What [`Net::forward`] computes.
#[derive(Debug, Clone)]
pub struct Pass {
    /// The first layer's outputs.
    pub first: [f32; HIDDEN],
    /// The second layer's outputs.
    pub second: [f32; SECOND],
    /// The logit.
    pub logit: f32,
}

/// A model ready to run or to write: its table in whole numbers and its perceptron.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// The rows; row 0 is zero.
    pub table: Vec<[i8; WIDTH]>,
    /// What one unit of each column is worth.
    pub scale: [f32; WIDTH],
    /// The perceptron.
    pub net: Box<Net>,
}
