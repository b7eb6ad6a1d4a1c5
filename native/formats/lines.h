// Turning 16 rows as a file has them into lines that hold 32 bits of each.
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {

using Lane = uint32_t;
using Quad = uint32_t __attribute__((vector_size(16)));
using Rows = const uint8_t* const*;  // of the 16 rows of a panel, at one place

struct alignas(64) Line {
  Lane of[kLanes];
};

#if defined(__clang__)
#define OUTRIDER_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define OUTRIDER_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Quad{__VA_ARGS__})
#endif

inline Quad load_quad(const uint8_t* p) {
  Quad r;
  __builtin_memcpy(&r, p, sizeof r);
  return r;
}

// 16 bytes of every row, as four lines.
inline void transpose(Rows rows, size_t at, Line* lines) {
  for (int first = 0; first < kLanes; first += 4) {
    const Quad a = load_quad(rows[first] + at), b = load_quad(rows[first + 1] + at);
    const Quad c = load_quad(rows[first + 2] + at), d = load_quad(rows[first + 3] + at);
    const Quad ab = OUTRIDER_SHUFFLE(a, b, 0, 4, 1, 5), cd = OUTRIDER_SHUFFLE(c, d, 0, 4, 1, 5);
    const Quad ab2 = OUTRIDER_SHUFFLE(a, b, 2, 6, 3, 7), cd2 = OUTRIDER_SHUFFLE(c, d, 2, 6, 3, 7);
    const Quad of[4] = {OUTRIDER_SHUFFLE(ab, cd, 0, 1, 4, 5), OUTRIDER_SHUFFLE(ab, cd, 2, 3, 6, 7),
                        OUTRIDER_SHUFFLE(ab2, cd2, 0, 1, 4, 5), OUTRIDER_SHUFFLE(ab2, cd2, 2, 3, 6, 7)};
    for (int i = 0; i < 4; ++i) __builtin_memcpy(lines[i].of + first, &of[i], sizeof of[i]);
  }
}

#undef OUTRIDER_SHUFFLE

// `kCount` lines from byte `at` of the rows on; a multiple of four.
template <int kCount>
void load_lines(Rows rows, size_t at, Line* lines) {
  static_assert(kCount % 4 == 0);
  for (int i = 0; i < kCount; i += 4) transpose(rows, at + 4 * static_cast<size_t>(i), lines + i);
}

// Four bytes of every row, at any place.
inline Line gather_line(Rows rows, size_t at) {
  Line line;
  for (int lane = 0; lane < kLanes; ++lane) __builtin_memcpy(&line.of[lane], rows[lane] + at, sizeof(Lane));
  return line;
}

// Two bytes of every row, side by side.
inline void copy_halves(Rows rows, size_t at, uint8_t* to) {
  for (int lane = 0; lane < kLanes; ++lane) __builtin_memcpy(to + 2 * lane, rows[lane] + at, 2);
}

inline void put_line(uint8_t* to, const Line& line) { __builtin_memcpy(to, line.of, sizeof line.of); }

// A line of what `f` makes of each lane's number.
template <typename F>
inline void fill_line(uint8_t* to, F f) {
  Line line;
  for (int lane = 0; lane < kLanes; ++lane) line.of[lane] = f(lane);
  put_line(to, line);
}

// `kCount` lines of codes, in the order that kernels read: lane `lane` of line j is f(j, lane).
template <int kCount, typename F>
inline void fill_codes(uint8_t* to, F f) {
  Lane words[kCount * kLanes];
  for (int j = 0; j < kCount; ++j)
    for (int lane = 0; lane < kLanes; ++lane) words[code_word(kCount, j, lane)] = f(j, lane);
  __builtin_memcpy(to, words, sizeof words);
}

// Where a block goes, of a panel that has the heads of its rows already.
struct Place {
  uint8_t* heads;
  uint8_t* block;
};

// One panel, block by block. Where a row ends within a block, zeros follow.
template <class T>
void pack_panel(Rows rows, int width, uint8_t* panel) {
  constexpr Layout layout = T::kLayout;
  constexpr size_t bytes = layout.row_block_bytes();
  const uint8_t* at[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    __builtin_memcpy(panel + layout.head * lane, rows[lane], layout.head);
    at[lane] = rows[lane] + layout.head;
  }
  Place to{panel, panel + layout.head_bytes()};
  size_t left = layout.row_bytes(width) - layout.head;
  for (; left >= bytes; left -= bytes, to.block += layout.block_bytes()) {
    T::pack(at, to);
    for (const uint8_t*& row : at) row += bytes;
  }
  if (left == 0) return;
  uint8_t last[kLanes][bytes] = {};
  for (int lane = 0; lane < kLanes; ++lane) {
    __builtin_memcpy(last[lane], at[lane], left);
    at[lane] = last[lane];
  }
  T::pack(at, to);
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA
