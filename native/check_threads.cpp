// Checks threads without Python or kernels: every task of every stage is done exactly once, and none before the stage
// before it is done, while threads are put aside at random. For ThreadSanitizer too: see `make check-threads`.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "threads.h"

namespace outrider {
namespace {

using Random = std::mt19937;

int failures = 0;

void expect(bool holds, const std::string& what) {
  if (!holds) std::printf("FAILED: %s\n", what.c_str());
  failures += !holds;
}

// Where going on would wait for ever.
[[noreturn]] void stop(const std::string& why) {
  std::printf("FAILED: %s\n", why.c_str());
  std::fflush(stdout);
  std::_Exit(1);
}

// Mostly nothing, and now and then a while in which others go on: as if the system had put the thread aside.
void delay(Random& random) {
  const auto chance = random() % 64;
  if (chance == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 500));
  else if (chance < 16) std::this_thread::yield();
}

// What was done of a run. What tasks write is no atomic: ThreadSanitizer sees whether stages are ordered.
class Record {
 public:
  explicit Record(const std::vector<int>& tasks) {
    for (const int count : tasks) times_.emplace_back(static_cast<size_t>(count));
  }

  void add(int stage, int first, int last) {
    for (int before = stage - 1; before >= 0; --before)
      for (const int times : times_[static_cast<size_t>(before)]) early_ += times != 1;
    for (int task = first; task < last; ++task)
      if (++times_[static_cast<size_t>(stage)].at(static_cast<size_t>(task)) != 1) stop("a task is done twice");
  }

  bool all_once() const {
    for (const auto& stage : times_)
      for (const int times : stage)
        if (times != 1) return false;
    return true;
  }
  bool in_order() const { return early_ == 0; }

 private:
  std::vector<std::vector<int>> times_;
  std::atomic<int> early_{0};
};

void check_tasks_once(int count, uint32_t seed) {
  const std::string what = std::to_string(count) + " threads, seed " + std::to_string(seed);
  Threads threads(count);
  Random random(seed);
  std::vector<Random> delays;
  for (int i = 0; i < count; ++i) delays.emplace_back(random());
  for (int run = 0; run < 40; ++run) {
    std::vector<int> tasks(random() % 6);
    for (int& of_stage : tasks) of_stage = static_cast<int>(random() % (random() % 2 ? 4 : 200));
    Record record(tasks);
    threads.run(tasks, [&](int stage, int first, int last, int thread) {
      Random& mine = delays[static_cast<size_t>(thread)];
      delay(mine);
      record.add(stage, first, last);
      delay(mine);
    });
    expect(record.all_once(), what + ": not every task was done once");
    expect(record.in_order(), what + ": a stage began before the one before it was done");
  }
}

// More tasks than there are numbers for: lots of several.
void check_many_tasks() {
  const std::vector<int> tasks{(1 << 18) + 3};
  Record record(tasks);
  Threads threads(3);
  threads.run(tasks, [&](int stage, int first, int last, int) { record.add(stage, first, last); });
  expect(record.all_once(), "of many tasks not every one was done once");
}

// A thread that is slow in all that it does holds the others up by a few tasks, and not by its share.
void check_slow_thread() {
  constexpr int kTasks = 64, kThreads = 2;
  std::atomic<int> begun{0}, taken[kThreads] = {};
  Threads threads(kThreads);
  threads.run({kTasks}, [&](int, int first, int last, int thread) {
    if (taken[thread] == 0) ++begun;
    while (begun < kThreads) std::this_thread::yield();  // the other is still asleep
    std::this_thread::sleep_for(std::chrono::milliseconds(thread == 0 ? 20 : 1) * (last - first));
    taken[thread] += last - first;
  });
  expect(taken[0] + taken[1] == kTasks && taken[0] < kTasks / 4,
         "a thread of a twentieth of the speed does " + std::to_string(taken[0]) + " of 64 tasks");
}

}  // namespace
}  // namespace outrider

int main() {
  using namespace outrider;
  std::thread([] {
    std::this_thread::sleep_for(std::chrono::minutes(3));
    stop("a run does not end: a task was lost");
  }).detach();
  for (const int count : {1, 2, 3, 8})
    for (uint32_t seed = 0; seed < 5; ++seed) check_tasks_once(count, seed);
  check_many_tasks();
  check_slow_thread();
  std::printf("threads: %s\n", failures ? "failed" : "passed");
  return failures != 0;
}
