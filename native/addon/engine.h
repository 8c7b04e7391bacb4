// A socket's native thread and its queue of jobs. Plain C++: what finished is handed to a callback on that thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "netlink/exchange.h"
#include "netlink/lock.h"
#include "xfrm/batch.h"
#include "xfrm/decode.h"

namespace xfrmesh {

// What a job works with: the thread's own things.
struct Workplace {
  Socket& socket;
  const Namespace& where;
  const Socket::Options& options;
  std::vector<Descriptor>& held;  // names taken, for as long as the socket is open
};

// A piece of work in order. Made on the JavaScript thread, run on the socket's, then read on the JavaScript thread.
class Job {
 public:
  explicit Job(std::uint32_t id, std::chrono::milliseconds limit = std::chrono::milliseconds::max()) : id_(id), limit_(limit) {}
  virtual ~Job() = default;
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  virtual void run(Workplace& place, const Control& control) = 0;
  // The socket was closed before the job's turn came.
  virtual void skip() = 0;

  [[nodiscard]] std::uint32_t id() const { return id_; }
  [[nodiscard]] std::chrono::milliseconds limit() const { return limit_; }
  std::atomic<bool> cancelled = false;

 private:
  std::uint32_t id_;
  std::chrono::milliseconds limit_;
};

class Engine {
 public:
  // `finished` is called on the engine's thread: with each job that ran or was skipped, and with nothing at the very end.
  using Finished = std::function<void(std::unique_ptr<Job>)>;

  Engine(Namespace where, Socket::Options options) : where_(std::move(where)), options_(options) {}
  ~Engine() { stop(); }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // May throw std::system_error where no thread is to be had.
  void start(Finished finished);
  void submit(std::unique_ptr<Job> job);
  void cancel(std::uint32_t id);
  // The job at work ends at its next chunk, those waiting are skipped, and the thread ends.
  void close();
  // close(), and waits until the thread has ended.
  void stop();

 private:
  void work();

  Namespace where_;
  Socket::Options options_;
  Finished finished_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::unique_ptr<Job>> queue_;
  Job* running_ = nullptr;
  std::atomic<bool> closing_ = false;
  std::thread thread_;
};

}  // namespace xfrmesh
