#pragma once

#include <napi.h>

#include <unordered_map>

#include "addon/engine.h"

namespace xfrmesh {

// A job whose outcome JavaScript waits for.
class JsJob : public Job {
 public:
  using Job::Job;
  // Settles the promise; on the JavaScript thread.
  virtual void settle(Napi::Env env, const Napi::Promise::Deferred& deferred) = 0;
};

// The class Socket of lib/native.ts: an Engine, and the promises of its jobs. While a job is at work the event loop is
// kept alive (but by one that waits for what may never come, if so asked), the object is not collected and what the job
// reads is not either; otherwise neither is. At the
// environment's end (exit, a worker's end) the engine's thread is joined before anything it could touch goes.
class SocketObject final : public Napi::ObjectWrap<SocketObject> {
 public:
  static Napi::Function define(Napi::Env env);

  explicit SocketObject(const Napi::CallbackInfo& info);
  ~SocketObject() override;
  SocketObject(const SocketObject&) = delete;
  SocketObject& operator=(const SocketObject&) = delete;

  struct Granted {
    std::uint32_t chunk = 0;
    std::size_t sendLimit = 0;
    std::uint64_t namespaceInode = 0;
  };
  void opened(const Granted& granted) { granted_ = granted; }

 private:
  struct Waiting {
    Napi::Promise::Deferred deferred;
    bool keepsAlive;
    std::vector<Napi::Reference<Napi::Value>> kept;  // buffers that the job reads
  };

  Napi::Value open(const Napi::CallbackInfo& info);
  Napi::Value commit(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value readNeighbours(const Napi::CallbackInfo& info);
  Napi::Value request(const Napi::CallbackInfo& info);
  Napi::Value transact(const Napi::CallbackInfo& info);
  Napi::Value takeSlice(const Napi::CallbackInfo& info);
  Napi::Value draft(const Napi::CallbackInfo& info);
  Napi::Value apply(const Napi::CallbackInfo& info);
  Napi::Value join(const Napi::CallbackInfo& info);
  Napi::Value hear(const Napi::CallbackInfo& info);
  Napi::Value lock(const Napi::CallbackInfo& info);
  Napi::Value readFile(const Napi::CallbackInfo& info);
  Napi::Value writeFile(const Napi::CallbackInfo& info);
  Napi::Value expedite(const Napi::CallbackInfo& info);
  Napi::Value openEncap(const Napi::CallbackInfo& info);
  Napi::Value checkEncap(const Napi::CallbackInfo& info);
  Napi::Value keepAlive(const Napi::CallbackInfo& info);
  void cancel(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  Napi::Value chunk(const Napi::CallbackInfo& info);
  Napi::Value sendLimit(const Napi::CallbackInfo& info);
  Napi::Value namespaceInode(const Napi::CallbackInfo& info);

  static Namespace namespaceOf(const Napi::Value& value);
  void start(Napi::Env env);
  Napi::Promise submit(Napi::Env env, std::unique_ptr<JsJob> job, std::initializer_list<Napi::Value> kept,
                       bool keepsAlive = true);
  // Keeps the event loop alive for as long as there is a job, or a close(), that does.
  void holdLoop(Napi::Env env);
  // Settles what the engine has done since.
  void collect(Napi::Env env);
  void settle(Napi::Env env, JsJob& job);
  void ended(Napi::Env env);
  // The thread's end, from whichever of close(), collection and the environment's end comes first.
  void shutDown();

  int protocol_ = 0;
  std::unique_ptr<Engine> engine_;  // until the end: with it goes its descriptor of the namespace
  Napi::ThreadSafeFunction callback_;
  bool started_ = false;
  bool ended_ = false;
  Granted granted_;
  std::unordered_map<std::uint32_t, Waiting> waiting_;
  bool keptAlive_ = false;
  std::vector<Napi::Promise::Deferred> closing_;
  void (*cleanup_)(void*) = nullptr;
};

}  // namespace xfrmesh
