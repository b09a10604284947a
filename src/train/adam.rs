//! Adam (Kingma and Ba, 2015) on mean gradients of a batch.

const BETA_MEAN: f32 = 0.9;
const BETA_SQUARE: f32 = 0.999;

/// The moments of a net's weights.
pub struct Adam {
    mean: Vec<f32>,
    square: Vec<f32>,
    /// The powers of the two betas so far.
    decay: [f32; 2],
    /// One over how many gradients are added up before a step.
    share: f32,
}

impl Adam {
    /// For `size` weights and batches of `batch` gradients.
    pub fn new(size: usize, batch: usize) -> Adam {
        let share = 1.0 / batch as f32;
        Adam { mean: vec![0.0; size], square: vec![0.0; size], decay: [1.0; 2], share }
    }

    /// One step of `length` for all weights, given part by part with the gradients added up, which are zero afterwards.
    #[inline(always)]
    pub fn step<'a>(
        &mut self,
        parts: impl Iterator<Item = (&'a mut [f32], &'a mut [f32])>,
        length: f32,
    ) {
        self.decay = [self.decay[0] * BETA_MEAN, self.decay[1] * BETA_SQUARE];
        let [mean_scale, square_scale] = self.decay.map(|power| 1.0 / (1.0 - power));
        let share = self.share;
        let mut from = 0;
        for (values, slopes) in parts {
            let to = from + values.len();
            let moments = self.mean[from..to].iter_mut().zip(&mut self.square[from..to]);
            for ((value, slope), (mean, square)) in values.iter_mut().zip(slopes).zip(moments) {
                let g = *slope * share;
                *mean = BETA_MEAN * *mean + (1.0 - BETA_MEAN) * g;
                *square = BETA_SQUARE * *square + (1.0 - BETA_SQUARE) * g * g;
                *value -= length * (*mean * mean_scale) / ((*square * square_scale).sqrt() + 1e-8);
                *slope = 0.0;
            }
            from = to;
        }
    }
}
