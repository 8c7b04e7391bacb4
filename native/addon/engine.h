// A socket's native thread and its queues: of jobs to do, and of jobs done. Plain C++.
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
#include "netlink/rcu_switch.h"
#include "netlink/udp_encap.h"

namespace xfrmesh {

// What a job works with: the thread's own things.
struct Workplace {
  Socket& socket;
  const Namespace& where;
  const Socket::Options& options;
  std::vector<Descriptor>& held;  // names taken, for as long as the socket is open
  RcuSwitch& expedited;           // off when the socket closes
  UdpEncap& encap;                // closed with the socket
};

// A piece of work in order. Made on the JavaScript thread, run on the socket's, then read on the JavaScript thread.
class Job {
 public:
  explicit Job(std::uint32_t id, std::chrono::milliseconds limit = std::chrono::milliseconds::max())
      : id_(id), limit_(limit) {}
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
  // Called on the engine's thread whenever there is something new to take().
  using Wake = std::function<void()>;

  Engine(Namespace where, Socket::Options options);
  ~Engine() { stop(); }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  [[nodiscard]] const Namespace& where() const { return where_; }
  // May throw std::system_error where no thread is to be had.
  void start(Wake wake);
  void submit(std::unique_ptr<Job> job);
  void cancel(std::uint32_t id);
  // The job at work ends at its next chunk, those waiting are skipped, and the thread ends.
  void close();
  // close(), and waits until the thread has ended.
  void stop();

  // The jobs that ran or were skipped since the last take(), and whether the thread has let go of all it held.
  std::vector<std::unique_ptr<Job>> take(bool& ended);

 private:
  void work();
  void workThrough();
  // Of a job that waits for what may never come.
  void rouse() const;

  Namespace where_;
  Socket::Options options_;
  Wake wake_;
  std::mutex mutex_;
  std::condition_variable work_;
  std::deque<std::unique_ptr<Job>> queue_;
  std::vector<std::unique_ptr<Job>> done_;
  Job* running_ = nullptr;
  bool ended_ = false;
  std::atomic<bool> closing_ = false;
  Descriptor rouser_;
  std::thread thread_;
};

}  // namespace xfrmesh
