// The search among near voxels. Part of kernel.cpp, inside its namespace.
//
// The words are relaxed as squares are: the minimum carries its argument with it.

// Relaxes a strip of a tile's words; `flags` says of each block whether some of its answers are not near.
// Returns whether any is.
bool relax_words(const std::int32_t* tile, Index stride, const Axis& axis, const NearestStep& step,
                 std::int32_t* strip, std::int32_t* split, std::uint8_t* flags) {
  constexpr Index L = Ints::lanes;
  const Index length = axis.length, rows = (length + kBlock - 1) / kBlock * kBlock;
  Phase<Ints> outside{split, split + 2 * rows * L, 0, 0};
  Phase<Ints> inside{split + rows * L, split + 2 * rows * L + rows / kBlock * L, 0, 0};
  const Ints most = Ints::splat(kNearInfinity), least_word = Ints::splat(-kNearInfinity);
  const auto load = [=](Index row) { return max(min(Ints::load(tile + row * stride), most), least_word); };
  split_phases(load, length, outside, inside);
  const Costs<Ints> costs{step.before, step.after};
  const Ints near_last = Ints::splat(step.near_end - 1);
  bool any = false;
  for (Index block = 0; block * kBlock < length; ++block) {
    const Index here = least(kBlock, length - block * kBlock);
    Ints out[kBlock], in[kBlock], largest = Ints::splat(0);
    relax_block(outside, block, here, costs, out);
    relax_block(inside, block, here, costs, in);
    for (Index i = 0; i < here; ++i) {
      largest = max(largest, max(out[i], in[i]));
      // One of the two is 0.
      subtract(out[i], in[i]).store(strip + (block * kBlock + i) * L);
    }
    const bool far = any_less(near_last, largest);
    flags[block] = far;
    any |= far;
  }
  return any;
}
