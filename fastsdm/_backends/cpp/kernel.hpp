// What one instruction set offers the engine. See kernel.cpp for the idea.
//
// This header is shared by translation units compiled with different instruction sets, so it holds no
// function body: an inline function compiled twice could be linked in the version the CPU cannot run.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastsdm {

using Index = std::ptrdiff_t;

constexpr Index kBlock = 8;                // rows answered, and rows opened, together
constexpr Index kTileColumns = 64;         // columns copied to scratch together: whole cache lines
constexpr std::int16_t kShortMax = 32767;  // in 16-bit lanes: this far or farther

// Squared cost of d steps along an axis, at cost[d * lanes] and repeated over a vector's lanes, for
// d < length rounded up to kBlock.
struct Axis {
  Index length;
  Index stride;   // floats from one row to the next
  Index first;    // row that is answered first
  Index answers;  // how many rows are answered
  const float* float_cost;
  const std::int16_t* short_cost;  // null where squared costs are not all integers
};

// How the last pass turns squared units into the distances that were asked for.
struct Finish {
  float unit;     // spacing of the axis that is scanned: 1 in squared units
  float reach;    // distances beyond it are not exact
  float outside;  // is added to signed distances outside, not above 0
  float inside;   // is added to those inside, not below 0
  float limit;    // the sum is cut to [-limit, limit]
};

// How the search for nearest voxels writes a column. In between, words stand for the voxels: see nearest.hpp.
struct NearestStep {
  float weight;                // of squared steps along the middle axis, in squares of the scanned axis' spacing
  float farthest;              // squares beyond it count as none ...
  float most;                  // ... and are all this: a number above it
  const std::int32_t* before;  // costs in words, as Axis has them, of steps towards lower indices ...
  const std::int32_t* after;   // ... and towards higher ones; null where squared costs are not all integers
  float near_squares;          // squares from this one on have no near words
  std::int32_t near_end;       // words from this one on do not tell the nearest voxel
  std::int32_t none_above;     // words above this one are none
  std::int32_t* words;         // after the middle axis: words again; null after the last one:
  std::int32_t* row;           // index along this axis
  std::int32_t* middle;        // index along the middle axis; may be null
  std::int32_t* scanned;       // index along the scanned axis
  bool stream;                 // indices are written past the cache: tiles begin at its lines
  Index column;                // the first column's number within its plane ...
  Index width;                 // ... whose rows are that long
};
constexpr Index kMostSteps = 16383;
constexpr Index kNearSteps = 31;  // along each axis, in words of near voxels
constexpr int kSquareShift = 18;  // of the square within such a word
constexpr std::int32_t kNearInfinity = (1 << 30) - 1;
constexpr std::int32_t kNoneWord = 1 << 30 | 1 << 29;

constexpr Index kWordPadding = 16;

// Columns of words beside each other.
struct Tile {
  const std::int32_t* words;
  Index stride;
};

// Words of the scanned axis for up to `width` steps to the left, and, from the farthest on, to the right.
struct ScanWords {
  const std::int32_t* left[2];  // outside, inside
  const std::int32_t* right[2];
  std::int32_t none[2];
};

// Both phases of a class, as bits.
constexpr unsigned kOutside = 1;
constexpr unsigned kInside = 2;

struct Kernel {
  const char* isa;
  Index float_lanes;
  Index short_lanes;

  // phase[x] = labels[x] - low <= span, for unsigned labels of 1, 2, 4, 8 bytes.
  using MatchRow = void (*)(const void* labels, std::uint64_t low, std::uint64_t span, Index width,
                            std::uint8_t* phase);
  MatchRow match_row[4];

  // Writes the signed squared distance of each voxel in [from, to) to the other phase within the row, at most
  // `cap`. `phase` must be readable for kPhasePadding bytes past `width`. Returns the phases of the whole row.
  unsigned (*scan_row)(std::uint8_t* phase, Index width, float cap, Index from, Index to, float* row);

  // Squared distance of each voxel to the nearest one of another label within the row, at most `cap`; 0 where
  // the label is the background. With `border` the row ends at another label. `edges` is like `phase`.
  using ScanInstances = void (*)(const void* labels, std::uint64_t background, Index width, float cap, bool border,
                                 std::uint8_t* edges, float* row);
  ScanInstances scan_instances[4];

  // Lowers `count` (at most kTileColumns) neighbouring columns, of squares or of distances, to that of the
  // nearest change of label along the column; with `border` the column ends at one. `cost` is that of one step.
  using LowerToChanges = void (*)(const void* labels, Index count, Index length, Index stride, bool squares,
                                  float cost, bool border, float* field);
  LowerToChanges lower_to_changes[4];

  // Lowers `count` (at most kTileColumns) neighbouring columns of signed squares to the minimum along an
  // axis; with `finish`, to signed distances. Writes the rows that are answered, with the same stride, to
  // `answers`, which may be their own place in `columns`. `scratch`, aligned to kScratchAlignment, holds in
  // vectors the tile and per phase a strip and the minima of its blocks, rows rounded up to kBlock.
  // `far` carries from one call of a thread to its next whether answers were too far for 16-bit lanes: it
  // changes the time, never the result.
  void (*relax_columns)(const float* columns, float* answers, Index count, const Axis& axis, const Finish* finish,
                        void* scratch, bool& far);

  // Fills such tables, each of `width` words; squares below `near_squares` are near. Without `both`, voxels inside
  // are not searched for: their words are 0.
  void (*fill_scan_words)(Index width, Index near_squares, bool both, std::int32_t* const (&tables)[4]);
  // Fills such tables of `rows`, for an axis whose first step costs `square`; the first axis is the last one.
  void (*fill_near_costs)(Index rows, Index square, Index near_squares, bool last, std::int32_t* before,
                          std::int32_t* after);

  // Writes the words of a row from its phases; `phase` as for scan_row. Returns the phases of the row.
  unsigned (*scan_nearest)(std::uint8_t* phase, Index width, const ScanWords& tables, std::int32_t* words);

  // Copies `count` (at most kTileColumns) neighbouring columns of words to a tile of kTileColumns.
  void (*copy_columns)(const std::int32_t* columns, Index count, const Axis& axis, std::int32_t* tile);

  // Searches such columns, which lie in a tile, and writes them where `step` says, with the axis' stride. What
  // the tile holds past them, up to kTileColumns, is words as well. `scratch` as for relax_columns, and behind it
  // kTileColumns / float_lanes bytes for each block.
  void (*nearest_columns)(const Tile& tile, Index count, const Axis& axis, const NearestStep& step, void* scratch);
};

constexpr Index kPhasePadding = 16;
constexpr Index kScratchAlignment = 64;

}  // namespace fastsdm
