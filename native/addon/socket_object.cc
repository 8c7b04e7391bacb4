#include "addon/socket_object.h"

#include <algorithm>

#include "addon/jobs.h"
#include "addon/masquerade_jobs.h"
#include "addon/values.h"
#include "route/batch.h"
#include "xfrm/batch.h"

namespace xfrmesh {
namespace {

// Tells sockets of ours from any other object.
constexpr napi_type_tag kTag{.lower = 0x78667266d6573680, .upper = 0x9f1c5e0b7a3d2468};

std::uint32_t number(const Napi::Value& value) { return value.As<Napi::Number>().Uint32Value(); }

std::chrono::milliseconds milliseconds(const Napi::Value& value) {
  return std::chrono::milliseconds(value.As<Napi::Number>().Int64Value());
}

}  // namespace

// What is none of the four must not pass for the process's own namespace, nor a number for the descriptor that is left
// of it in 32 bits.
Namespace SocketObject::namespaceOf(const Napi::Value& value) {
  if (value.IsUndefined()) return {};
  if (value.IsObject() && value.As<Napi::Object>().CheckTypeTag(&kTag)) {
    const SocketObject* other = Unwrap(value.As<Napi::Object>());
    if (other->engine_ != nullptr) return other->engine_->where().again();
  }
  if (value.IsString()) return Namespace::atPath(value.As<Napi::String>().Utf8Value());
  if (value.IsNumber()) {
    const auto descriptor = value.As<Napi::Number>();
    if (descriptor.DoubleValue() == descriptor.Int32Value()) return Namespace::ofDescriptor(descriptor.Int32Value());
  }
  throw Napi::TypeError::New(value.Env(), "netns: neither a path, nor a descriptor, nor an open socket");
}

Napi::Function SocketObject::define(Napi::Env env) {
  return DefineClass(env, "Socket",
                     {InstanceMethod<&SocketObject::open>("open"),
                      InstanceMethod<&SocketObject::commit>("commit"),
                      InstanceMethod<&SocketObject::read>("read"),
                      InstanceMethod<&SocketObject::readNeighbours>("readNeighbours"),
                      InstanceMethod<&SocketObject::request>("request"),
                      InstanceMethod<&SocketObject::transact>("transact"),
                      InstanceMethod<&SocketObject::takeSlice>("takeSlice"),
                      InstanceMethod<&SocketObject::draft>("draft"),
                      InstanceMethod<&SocketObject::apply>("apply"),
                      InstanceMethod<&SocketObject::join>("join"),
                      InstanceMethod<&SocketObject::hear>("hear"),
                      InstanceMethod<&SocketObject::lock>("lock"),
                      InstanceMethod<&SocketObject::readFile>("readFile"),
                      InstanceMethod<&SocketObject::writeFile>("writeFile"),
                      InstanceMethod<&SocketObject::expedite>("expedite"),
                      InstanceMethod<&SocketObject::openEncap>("openEncap"),
                      InstanceMethod<&SocketObject::checkEncap>("checkEncap"),
                      InstanceMethod<&SocketObject::keepAlive>("keepAlive"),
                      InstanceMethod<&SocketObject::cancel>("cancel"),
                      InstanceMethod<&SocketObject::close>("close"),
                      InstanceAccessor<&SocketObject::chunk>("chunk"),
                      InstanceAccessor<&SocketObject::sendLimit>("sendLimit"),
                      InstanceAccessor<&SocketObject::namespaceInode>("namespaceInode")});
}

SocketObject::SocketObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {
  info.This().As<Napi::Object>().TypeTag(&kTag);
  const auto options = info[0].As<Napi::Object>();
  protocol_ = options.Get("protocol").As<Napi::Number>().Int32Value();
  const Socket::Options wanted{.protocol = protocol_,
                               .receiveBuffer = number(options.Get("receiveBuffer")),
                               .sendBuffer = number(options.Get("sendBuffer")),
                               .chunk = number(options.Get("chunk"))};
  engine_ = std::make_unique<Engine>(namespaceOf(options.Get("netns")), wanted);
}

SocketObject::~SocketObject() { shutDown(); }

// The thread and what it calls back through exist from the first job on: a socket that was only made costs nothing.
void SocketObject::start(Napi::Env env) {
  if (started_) return;
  callback_ = Napi::ThreadSafeFunction::New(env, Napi::Function(), "xfrmesh socket", 0, 1);
  callback_.Unref(env);
  try {
    // Where the environment is going the call comes to nothing: nobody waits for the outcome any more.
    engine_->start(
        [this] { callback_.NonBlockingCall([this](Napi::Env inner, Napi::Function /*none*/) { collect(inner); }); });
  } catch (const std::system_error& error) {
    callback_.Abort();
    throw Napi::Error::New(env, error.what());
  }
  started_ = true;
  // Hooks run last come, first served: this one, made after the callback's own, ends the thread before the callback
  // goes.
  cleanup_ = [](void* self) {
    auto* object = static_cast<SocketObject*>(self);
    object->cleanup_ = nullptr;
    object->shutDown();
  };
  napi_add_env_cleanup_hook(env, cleanup_, this);
}

void SocketObject::shutDown() {
  if (cleanup_ != nullptr) napi_remove_env_cleanup_hook(Env(), cleanup_, this);
  cleanup_ = nullptr;
  if (!started_ || ended_) return;
  ended_ = true;
  engine_->stop();
  callback_.Abort();
  engine_.reset();
}

Napi::Promise SocketObject::submit(Napi::Env env, std::unique_ptr<JsJob> job, std::initializer_list<Napi::Value> kept,
                                   bool keepsAlive) {
  auto deferred = Napi::Promise::Deferred::New(env);
  const Napi::Promise promise = deferred.Promise();
  if (ended_ || !closing_.empty()) {
    job->skip();
    job->settle(env, deferred);
    return promise;
  }
  start(env);
  Waiting waiting{.deferred = deferred, .keepsAlive = keepsAlive, .kept = {}};
  for (const Napi::Value& value : kept) {
    if (value.IsObject()) waiting.kept.push_back(Napi::Persistent(value));
  }
  if (waiting_.empty()) Ref();
  waiting_.emplace(job->id(), std::move(waiting));
  holdLoop(env);
  engine_->submit(std::move(job));
  return promise;
}

void SocketObject::collect(Napi::Env env) {
  if (engine_ == nullptr) return;
  const Napi::HandleScope scope(env);
  bool finished = false;
  const auto jobs = engine_->take(finished);
  // A worker that is being ended runs no JavaScript any more, and every call says so by throwing. Nobody waits either.
  try {
    for (const auto& job : jobs) settle(env, static_cast<JsJob&>(*job));
    if (finished) ended(env);
  } catch (const Napi::Error&) {  // NOLINT(bugprone-empty-catch)
  }
}

void SocketObject::settle(Napi::Env env, JsJob& job) {
  const auto found = waiting_.find(job.id());
  if (found == waiting_.end()) return;
  const Waiting waiting = std::move(found->second);
  waiting_.erase(found);
  try {
    job.settle(env, waiting.deferred);
  } catch (const Napi::Error& error) {
    waiting.deferred.Reject(error.Value());
  }
  holdLoop(env);
  if (waiting_.empty()) Unref();
}

void SocketObject::holdLoop(Napi::Env env) {
  const bool keep = !closing_.empty() || std::any_of(waiting_.begin(), waiting_.end(),
                                                     [](const auto& entry) { return entry.second.keepsAlive; });
  if (keep == keptAlive_) return;
  keptAlive_ = keep;
  if (keep) {
    callback_.Ref(env);
  } else {
    callback_.Unref(env);
  }
}

Napi::Value SocketObject::open(const Napi::CallbackInfo& info) {
  return submit(info.Env(), std::make_unique<OpenJob>(number(info[0]), *this), {});
}

Napi::Value SocketObject::commit(const Napi::CallbackInfo& info) {
  const Bytes records = bytesOfArray(info[1]);
  std::unique_ptr<Batch> batch;
  if (protocol_ == NETLINK_ROUTE) {
    batch = std::make_unique<NeighbourBatch>(records);
  } else {
    batch = std::make_unique<XfrmBatch>(records, tablesOf(info[2], info[3]));
  }
  return submit(info.Env(), std::make_unique<CommitJob>(number(info[0]), milliseconds(info[4]), std::move(batch)),
                {info[1]});
}

Napi::Value SocketObject::read(const Napi::CallbackInfo& info) {
  const ReadJob::Query query{.policies = info[1].As<Napi::Boolean>().Value(),
                             .one = info[2].IsUndefined() ? Bytes{} : bytesOfArray(info[2]),
                             .filter = {.reqid = number(info[3]), .details = info[4].As<Napi::Boolean>().Value()}};
  return submit(info.Env(),
                std::make_unique<ReadJob>(number(info[0]), milliseconds(info[7]), query, tablesOf(info[5], info[6])),
                {info[2]});
}

Napi::Value SocketObject::readNeighbours(const Napi::CallbackInfo& info) {
  return submit(info.Env(),
                std::make_unique<ReadNeighboursJob>(number(info[0]), milliseconds(info[3]),
                                                    static_cast<std::uint8_t>(number(info[1])),
                                                    info[2].As<Napi::Number>().Int32Value()),
                {});
}

Napi::Value SocketObject::request(const Napi::CallbackInfo& info) {
  const RequestJob::Question question{.type = static_cast<std::uint16_t>(number(info[1])),
                                      .flags = static_cast<std::uint16_t>(number(info[2])),
                                      .payload = bytesOfArray(info[3])};
  return submit(info.Env(), std::make_unique<RequestJob>(number(info[0]), milliseconds(info[4]), question), {info[3]});
}

Napi::Value SocketObject::transact(const Napi::CallbackInfo& info) {
  return submit(
      info.Env(),
      std::make_unique<TransactJob>(number(info[0]), milliseconds(info[4]), bytesOfArray(info[1]), number(info[2]),
                                    info[3].As<Napi::Boolean>().Value(), heldComments(info[5])),
      {info[1]});
}

Napi::Value SocketObject::takeSlice(const Napi::CallbackInfo& info) {
  return submit(info.Env(), takeSliceJob(info), {info[3], info[4]});
}

Napi::Value SocketObject::draft(const Napi::CallbackInfo& info) {
  return submit(info.Env(), draftJob(info), {info[3]});
}

Napi::Value SocketObject::apply(const Napi::CallbackInfo& info) {
  return submit(info.Env(), applyJob(info), {info[2]});
}

Napi::Value SocketObject::join(const Napi::CallbackInfo& info) {
  std::vector<std::uint32_t> groups;
  const auto list = info[1].As<Napi::Array>();
  for (std::uint32_t i = 0; i < list.Length(); i++) groups.push_back(number(list.Get(i)));
  return submit(info.Env(), std::make_unique<JoinJob>(number(info[0]), std::move(groups)), {});
}

Napi::Value SocketObject::hear(const Napi::CallbackInfo& info) {
  return submit(info.Env(), std::make_unique<HearJob>(number(info[0])), {}, info[1].As<Napi::Boolean>().Value());
}

Napi::Value SocketObject::lock(const Napi::CallbackInfo& info) {
  return submit(info.Env(), std::make_unique<LockJob>(number(info[0]), info[1].As<Napi::String>().Utf8Value()), {});
}

Napi::Value SocketObject::readFile(const Napi::CallbackInfo& info) {
  return submit(info.Env(), std::make_unique<FileJob>(number(info[0]), info[1].As<Napi::String>().Utf8Value()), {});
}

Napi::Value SocketObject::writeFile(const Napi::CallbackInfo& info) {
  return submit(info.Env(),
                std::make_unique<FileJob>(number(info[0]), info[1].As<Napi::String>().Utf8Value(),
                                          info[2].As<Napi::String>().Utf8Value()),
                {});
}

Napi::Value SocketObject::expedite(const Napi::CallbackInfo& info) {
  const auto what = static_cast<ExpediteJob::What>(number(info[1]));
  return submit(info.Env(), std::make_unique<ExpediteJob>(number(info[0]), what), {});
}

Napi::Value SocketObject::openEncap(const Napi::CallbackInfo& info) {
  UdpEncap::Place place{.family = static_cast<sa_family_t>(number(info[1])),
                        .address = {},
                        .port = static_cast<std::uint16_t>(number(info[3]))};
  const Bytes address = bytesOfArray(info[2]);
  std::memcpy(place.address, address.data(), std::min(address.size(), sizeof place.address));
  const int given = info[4].IsUndefined() ? -1 : info[4].As<Napi::Number>().Int32Value();
  return submit(info.Env(), std::make_unique<OpenEncapJob>(number(info[0]), place, given), {});
}

Napi::Value SocketObject::checkEncap(const Napi::CallbackInfo& info) {
  return submit(info.Env(), std::make_unique<CheckEncapJob>(number(info[0])), {});
}

// Whether the process lives on is no matter of keepalives.
Napi::Value SocketObject::keepAlive(const Napi::CallbackInfo& info) {
  const auto ports = info[2].As<Napi::Uint16Array>();
  return submit(info.Env(),
                std::make_unique<KeepAliveJob>(number(info[0]), milliseconds(info[3]), bytesOfArray(info[1]),
                                               std::span<const std::uint16_t>(ports.Data(), ports.ElementLength())),
                {info[1], info[2]}, false);
}

void SocketObject::cancel(const Napi::CallbackInfo& info) {
  if (started_ && !ended_) engine_->cancel(number(info[0]));
}

Napi::Value SocketObject::close(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto deferred = Napi::Promise::Deferred::New(env);
  if (!started_ || ended_) {
    ended_ = true;
    engine_.reset();
    deferred.Resolve(env.Undefined());
    return deferred.Promise();
  }
  if (closing_.empty()) Ref();
  closing_.push_back(deferred);
  holdLoop(env);
  engine_->close();
  return deferred.Promise();
}

void SocketObject::ended(Napi::Env env) {
  if (ended_) return;
  shutDown();
  for (const auto& deferred : closing_) deferred.Resolve(env.Undefined());
  Unref();
}

// Accessors of Node-API's are no const members.
// NOLINTBEGIN(readability-make-member-function-const)
Napi::Value SocketObject::chunk(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), granted_.chunk);
}

Napi::Value SocketObject::sendLimit(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(granted_.sendLimit));
}

Napi::Value SocketObject::namespaceInode(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(granted_.namespaceInode));
}
// NOLINTEND(readability-make-member-function-const)

}  // namespace xfrmesh
