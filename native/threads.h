// Threads that work through the stages of a run together.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace outrider {

// For its lifetime this thread computes with subnormal numbers and rounds to nearest, whatever the caller has
// set (`torch.set_flush_denormal`): results may not depend on which thread takes a task.
class DefaultFloats {
 public:
  DefaultFloats();
  ~DefaultFloats();
  DefaultFloats(const DefaultFloats&) = delete;
  DefaultFloats& operator=(const DefaultFloats&) = delete;

 private:
  uint64_t before_ = 0;
};

// `count` threads, the caller's among them. A run is a list of stages, each cut into tasks; a stage begins
// when all tasks of the one before are done. It waits for tasks, never for threads: one that the system has
// put aside while it holds no task delays nobody, so a busy machine costs what it takes away and no more.
//
// Each thread has a part of a stage, the same in every run, and does it front to back, a few tasks at a time. A
// thread that is through takes half of what another has not begun. So cores of any speed are done at nearly the
// same time, whether they are small ones or others use them too, and nothing has to be known of their speeds.
//
// During a run no thread sleeps, however long the tasks are. Between runs the other threads spin for about a
// millisecond, which covers the gap between two steps of decoding, and then sleep. Runs of one pool go one
// after the other.
//
// A process that was forked has the pool and none of its other threads: there a run is refused, and destroying
// the pool touches none of them.
class Threads {
 public:
  // Does tasks first <= task < last of a stage.
  using Body = std::function<void(int stage, int first, int last, int thread)>;

  explicit Threads(int count);  // throws std::runtime_error where the system has no more threads
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  int count() const { return count_; }
  // Throws std::runtime_error in a process that is a fork of the one that started the threads.
  void check_process() const;
  // tasks: of each stage, up to 2^30. Throws what `check_process` does.
  void run(const std::vector<int>& tasks, const Body& body);
  // One stage of `count` tasks; a single one is done by the caller, whom it would take as long to hand it over.
  void each(int count, const std::function<void(int task, int thread)>& body);

 private:
  void work(int thread);
  void stop();
  void do_all(int thread);
  bool do_some(uint64_t stage, int thread);
  bool begins_soon() const;
  void begin_stage(uint64_t serial, int starter);

  // Consecutive lots of tasks of a stage.
  struct Lots {
    int first, last;
    int count() const { return last - first; }
  };
  // What of a thread's lots nobody has begun.
  struct alignas(64) Part {
    std::atomic<uint64_t> left{0};
  };
  Lots part_of(uint64_t stage, int thread) const;
  Lots take_own(uint64_t stage, int thread);
  Lots take_from_others(uint64_t stage, int thread);
  template <typename Keep>
  Lots take(uint64_t stage, int of, const Keep& keep);

  const int count_;
  const long process_;  // that the threads run in
  const Body* body_ = nullptr;  // these two are read only by who holds a task, or runs
  const std::vector<int>* tasks_ = nullptr;
  uint64_t first_ = 0, end_ = 1;  // serial numbers of the run's stages; 0 is no stage's
  std::mutex one_run_;
  std::atomic<bool> stopping_{false};
  std::vector<Part> parts_;                       // of each thread
  alignas(64) std::atomic<uint64_t> stage_{0};    // the stage's serial number, who began it, and its lots
  alignas(64) std::atomic<int> done_{0};          // lots of the stage
  alignas(64) std::atomic<uint32_t> started_{0};  // runs
  std::vector<std::thread> others_;
};

}  // namespace outrider
