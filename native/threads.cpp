#include "threads.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace outrider {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kSpin = std::chrono::milliseconds(1);
constexpr int kPausesPerLook = 64;        // at the clock, between runs
constexpr int kPausesBeforeYield = 4096;  // while others hold the last tasks: perhaps they wait for this core
constexpr int kMostTakes = 8;             // of one thread, of a stage, if they are as short as can be

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// The register that says how this thread rounds and whether it flushes subnormal numbers to zero.
#if defined(__x86_64__)
constexpr uint64_t kDefaultFloats = 0x1f80;  // the exceptions masked, as they always are
uint64_t float_control() { return _mm_getcsr(); }
void set_float_control(uint64_t value) { _mm_setcsr(static_cast<unsigned>(value)); }
#elif defined(__aarch64__)
constexpr uint64_t kDefaultFloats = 0;
uint64_t float_control() {
  uint64_t value;
  asm volatile("mrs %0, fpcr" : "=r"(value));
  return value;
}
void set_float_control(uint64_t value) { asm volatile("msr fpcr, %0" : : "r"(value) : "memory"); }
#else
constexpr uint64_t kDefaultFloats = 0;
uint64_t float_control() { return 0; }
void set_float_control(uint64_t) {}
#endif

// Threads take tasks in lots: of one task each, unless a stage has more than can be counted in a state.
//
// A state, in bits: 30 serial number, 17 lots, 17 taken. Taking lots adds to it, if nobody else changed it;
// the serial number keeps a thread that was put aside from taking lots of a stage that it has not seen begin.
constexpr int kLotBits = 17;
constexpr int kMaxLots = (1 << kLotBits) - 1;
constexpr uint64_t kSerialMask = (uint64_t{1} << 30) - 1;

uint64_t state_of(uint64_t serial, int lots) {
  return (serial & kSerialMask) << 2 * kLotBits | static_cast<uint64_t>(lots) << kLotBits;
}
uint64_t serial_of(uint64_t state) { return state >> 2 * kLotBits; }
int lots_of(uint64_t state) { return static_cast<int>(state >> kLotBits) & kMaxLots; }
int taken_of(uint64_t state) { return static_cast<int>(state) & kMaxLots; }

#if defined(__unix__) || defined(__APPLE__)
long this_process() { return getpid(); }
#else
long this_process() { return 0; }  // the system does not copy processes
#endif

int divide_up(int n, int by) { return (n + by - 1) / by; }
int tasks_per_lot(int tasks) { return divide_up(tasks, kMaxLots); }

// Lots to take at once of those left. Mostly three quarters of what would be fair, so that what is left evens
// out how long the threads take; not too few, since each taking moves cache lines from core to core, and the
// weights of neighbouring tasks are read ahead.
int share_of(int left, int lots, int threads) {
  return std::min(left, std::max({1, lots / (kMostTakes * threads), left * 3 / (4 * threads)}));
}

}  // namespace

DefaultFloats::DefaultFloats() : before_(float_control()) { set_float_control(kDefaultFloats); }

DefaultFloats::~DefaultFloats() { set_float_control(before_); }

Threads::Threads(int count) : count_(count), process_(this_process()) {
  try {
    for (int i = 1; i < count; ++i) others_.emplace_back([this, i] { work(i); });
  } catch (const std::exception& error) {
    const std::string started = std::to_string(others_.size() + 1);
    stop();
    throw std::runtime_error("count = " + std::to_string(count) + ": the system has only " + started +
                             " threads (" + error.what() + ")");
  }
}

Threads::~Threads() { stop(); }

void Threads::stop() {
  if (this_process() != process_) {
    // They can be neither joined nor detached where they never ran: left as they are, and never destroyed.
    new std::vector<std::thread>(std::move(others_));
    return;
  }
  stopping_.store(true, std::memory_order_relaxed);
  started_.fetch_add(1, std::memory_order_release);
  started_.notify_all();
  for (auto& thread : others_) thread.join();
}

void Threads::check_process() const {
  if (this_process() != process_)
    throw std::runtime_error("the threads were started in process " + std::to_string(process_) +
                             ", and a fork of it, as process " + std::to_string(this_process()) +
                             " is, has none of them; load the model in the process that runs it");
}

void Threads::run(const std::vector<int>& tasks, const Body& body) {
  check_process();
  const std::lock_guard lock(one_run_);
  tasks_ = &tasks;
  body_ = &body;
  first_ = end_;
  end_ = first_ + tasks.size();
  begin_stage(first_);
  started_.fetch_add(1, std::memory_order_release);
  started_.notify_all();
  do_all(0);
}

void Threads::each(int count, const std::function<void(int task, int thread)>& body) {
  if (count == 0) return;
  if (count == 1) return body(0, 0);
  run({count}, [&body](int, int first, int last, int thread) {
    for (int task = first; task < last; ++task) body(task, thread);
  });
}

// The first stage from `serial` on that has tasks, or the run's end, which is a stage of no lots.
void Threads::begin_stage(uint64_t serial) {
  while (serial < end_ && (*tasks_)[serial - first_] == 0) ++serial;
  const int tasks = serial < end_ ? (*tasks_)[serial - first_] : 0;
  const int lots = tasks > 0 ? divide_up(tasks, tasks_per_lot(tasks)) : 0;
  done_.store(0, std::memory_order_relaxed);
  state_.store(state_of(serial, lots), std::memory_order_release);
}

// Takes lots of the stage and does them. False if all were taken, or if another thread was faster.
bool Threads::do_some(uint64_t state, int thread) {
  const int lots = lots_of(state), first = taken_of(state);
  if (first == lots) return false;
  const int share = share_of(lots - first, lots, count_);
  if (!state_.compare_exchange_weak(state, state + static_cast<uint64_t>(share), std::memory_order_acq_rel,
                                    std::memory_order_relaxed))
    return false;
  const int stage = static_cast<int>((serial_of(state) - first_) & kSerialMask);
  const int tasks = (*tasks_)[static_cast<size_t>(stage)], size = tasks_per_lot(tasks);
  (*body_)(stage, first * size, std::min(tasks, (first + share) * size), thread);
  if (done_.fetch_add(share, std::memory_order_acq_rel) + share == lots)
    begin_stage(first_ + static_cast<uint64_t>(stage) + 1);
  return true;
}

void Threads::work(int thread) {
  const DefaultFloats floats;
  for (;;) {
    // In this order: who stops us counts `started_` up after `stopping_`, so that waiting ends at once.
    const uint32_t seen = started_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    do {
      do_all(thread);
    } while (begins_soon());
    started_.wait(seen, std::memory_order_acquire);
  }
}

// Does tasks until no run has any to come. A thread that finds none to take does not sleep before that: the
// others may hold long ones, and the next stage's begin when those are done.
void Threads::do_all(int thread) {
  uint64_t state;
  for (int idle = 0; lots_of(state = state_.load(std::memory_order_acquire)) != 0; ++idle) {
    if (do_some(state, thread)) {
      idle = 0;
    } else if (idle < kPausesBeforeYield) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

// Whether a run begins within `kSpin`.
bool Threads::begins_soon() const {
  const auto until = Clock::now() + kSpin;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (lots_of(state_.load(std::memory_order_acquire)) != 0) return true;
      pause();
    }
  } while (Clock::now() < until);
  return false;
}

}  // namespace outrider
