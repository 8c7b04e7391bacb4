#include "addon/masquerade_jobs.h"

#include <algorithm>
#include <cerrno>
#include <stdexcept>

#include "addon/values.h"

namespace xfrmesh {
namespace {

// JavaScript holds a share in what jobs work on.
template <typename T>
Napi::Value shareOf(Napi::Env env, std::shared_ptr<T> value) {
  return Napi::External<std::shared_ptr<T>>::New(env, new std::shared_ptr<T>(std::move(value)),
                                                 [](Napi::Env /*env*/, std::shared_ptr<T>* share) { delete share; });
}

template <typename T>
std::shared_ptr<T> shared(const Napi::Value& value) {
  return *value.As<Napi::External<std::shared_ptr<T>>>().Data();
}

template <typename T>
std::span<const T> spanOf(const Napi::Value& value) {
  const auto array = value.As<Napi::TypedArrayOf<T>>();
  return {array.Data(), array.ElementLength()};
}

std::uint32_t number(const Napi::Value& value) { return value.As<Napi::Number>().Uint32Value(); }

// The i-th of keys that lie one after the other.
Key keyAt(Bytes keys, std::size_t i) { return load<Key>(keys, i * sizeof(Key)); }

// A job that only works things out: it fails for want of memory alone.
class WorkJob : public JsJob {
 public:
  using JsJob::JsJob;
  void run(Workplace& /*place*/, const Control& /*control*/) override {
    try {
      work();
    } catch (...) {
      ending_ = Ending::kFailed;
      error_ = ENOMEM;
    }
  }
  void skip() override { ending_ = Ending::kClosed; }
  void settle(Napi::Env env, const Napi::Promise::Deferred& deferred) override {
    auto value = Napi::Object::New(env);
    value.Set("ending", static_cast<double>(ending_));
    value.Set("errno", error_);
    if (ending_ == Ending::kComplete) tell(env, value);
    deferred.Resolve(value);
  }

 protected:
  virtual void work() = 0;
  virtual void tell(Napi::Env /*env*/, Napi::Object& /*value*/) {}

 private:
  Ending ending_ = Ending::kComplete;
  int error_ = 0;
};

class TakeSliceJob final : public WorkJob {
 public:
  TakeSliceJob(std::uint32_t id, std::shared_ptr<Slices> slices, std::uint32_t index, const AttachmentTexts& given)
      : WorkJob(id), slices_(std::move(slices)), index_(index), given_(given) {}

 protected:
  void work() override {
    const std::size_t least = index_ + std::size_t{1};
    if (slices_->all.size() < least) slices_->all.resize(least);
    if (slices_->taken.size() < least) slices_->taken.resize(least);
    slices_->taken[index_] = takeAttachments(given_, slices_->all[index_]) ? 1 : 0;
  }

 private:
  std::shared_ptr<Slices> slices_;
  std::uint32_t index_;
  AttachmentTexts given_;
};

Napi::Value valueOf(Napi::Env env, const std::vector<MappingGroup>& groups) {
  auto subnets = Napi::Uint8Array::New(env, groups.size() * sizeof(Subnet));
  auto counts = Napi::Uint32Array::New(env, groups.size());
  for (std::size_t i = 0; i < groups.size(); i++) {
    std::memcpy(subnets.Data() + i * sizeof(Subnet), &groups[i].subnet, sizeof(Subnet));
    counts[i] = groups[i].count;
  }
  auto value = Napi::Object::New(env);
  value.Set("subnets", subnets);
  value.Set("counts", counts);
  return value;
}

class DraftJob final : public WorkJob {
 public:
  enum class What : std::uint8_t { kAdd = 0, kRemove = 1, kCollect = 2 };
  DraftJob(std::uint32_t id, What what, Kind kind, Bytes network, Drafted drafted, std::uint32_t slices)
      : WorkJob(id),
        what_(what),
        kind_(kind),
        network_(network),
        drafted_(std::make_shared<Drafted>(std::move(drafted))),
        slices_(slices) {}

 protected:
  void work() override {
    const auto& taken = drafted_->slices->taken;
    for (std::uint32_t i = 0; i < slices_; i++)
      if (i >= taken.size() || taken[i] == 0) refused_.push_back(i);
    if (!refused_.empty()) return;
    Draft& draft = drafted_->draft.emplace(*drafted_->ledger, kind_);
    std::size_t mappings = 0;
    for (const Attachments& slice : drafted_->slices->all) mappings += slice.mappings.size();
    draft.reserve(mappings);
    if (what_ == What::kCollect) draft.collect(network_, drafted_->slices->all);
    for (const Attachments& slice : drafted_->slices->all) {
      if (what_ == What::kAdd) draft.add(slice);
      if (what_ == What::kRemove)
        for (const Key& owner : slice.owners) draft.remove(owner);
    }
    drafted_->plan = draft.plan();
  }

  void tell(Napi::Env env, Napi::Object& value) override {
    const Plan& plan = drafted_->plan;
    auto refused = Napi::Uint32Array::New(env, refused_.size());
    std::ranges::copy(refused_, refused.Data());
    auto deleteRules = Napi::Float64Array::New(env, plan.deleteRules.size());
    std::ranges::copy(plan.deleteRules, deleteRules.Data());
    value.Set("refused", refused);
    value.Set("deleteRules", deleteRules);
    value.Set("delete4", copyOf(env, plan.delete4));
    value.Set("delete6", copyOf(env, plan.delete6));
    value.Set("elements", valueOf(env, plan.elements));
    value.Set("rules", valueOf(env, plan.rules));
    value.Set("keys", copyOf(env, plan.keys));
    value.Set("oldSubnets", copyOf(env, std::as_bytes(std::span(plan.oldSubnets))));
    value.Set("left4", plan.left4);
    value.Set("left6", plan.left6);
    value.Set("draft", shareOf(env, drafted_));
  }

 private:
  What what_;
  Kind kind_;
  Bytes network_;
  std::shared_ptr<Drafted> drafted_;
  std::uint32_t slices_;
  std::vector<std::uint32_t> refused_;
};

class ApplyJob final : public WorkJob {
 public:
  ApplyJob(std::uint32_t id, std::shared_ptr<Drafted> drafted, std::span<const double> handles)
      : WorkJob(id), drafted_(std::move(drafted)), handles_(handles) {}

 protected:
  void work() override {
    std::size_t rules = 0;
    for (const MappingGroup& group : drafted_->plan.rules) rules += group.count;
    if (!drafted_->draft || handles_.size() != rules) throw std::logic_error("a handle for each rule");
    drafted_->draft->apply(*drafted_->ledger, handles_);
    // Nobody needs these again, and JavaScript may hold its share for long.
    drafted_->draft.reset();
    drafted_->plan = {};
    drafted_->slices->all = {};
  }

 private:
  std::shared_ptr<Drafted> drafted_;
  std::span<const double> handles_;
};

}  // namespace

std::shared_ptr<const std::vector<const CommentSlot*>> heldComments(const Napi::Value& draft) {
  if (draft.IsUndefined()) return {};
  const auto drafted = shared<Drafted>(draft);
  return {drafted, &drafted->plan.comments};
}

Napi::Value newSlices(const Napi::CallbackInfo& info) { return shareOf(info.Env(), std::make_shared<Slices>()); }

Napi::Value newLedger(const Napi::CallbackInfo& info) {
  auto ledger = std::make_shared<Ledger>();
  const Bytes elementOwners = bytesOfArray(info[0]);
  const Bytes addresses = bytesOfArray(info[1]);
  const Bytes subnets = bytesOfArray(info[2]);
  const Bytes comments = bytesOfArray(info[3]);
  const Bytes ruleOwners = bytesOfArray(info[4]);
  const auto handles = spanOf<double>(info[5]);
  ledger->reserve(elementOwners.size() / sizeof(Key) + handles.size());
  for (std::size_t i = 0; i < elementOwners.size() / sizeof(Key); i++) {
    const auto comment = load<CommentSlot>(comments, i * sizeof(CommentSlot));
    ledger->addElement({.kind = Kind::kElement,
                        .owner = keyAt(elementOwners, i),
                        .address = keyAt(addresses, i),
                        .subnet = load<Subnet>(subnets, i * sizeof(Subnet)),
                        .comment = &comment});
  }
  for (std::size_t i = 0; i < handles.size(); i++) ledger->addRule(keyAt(ruleOwners, i), handles[i]);
  return shareOf(info.Env(), std::move(ledger));
}

std::unique_ptr<JsJob> takeSliceJob(const Napi::CallbackInfo& info) {
  return std::make_unique<TakeSliceJob>(number(info[0]), shared<Slices>(info[1]), number(info[2]),
                                        AttachmentTexts{.texts = bytesOfArray(info[3]),
                                                        .counts = spanOf<std::uint32_t>(info[4]),
                                                        .namesChecked = info[5].As<Napi::Boolean>().Value()});
}

std::unique_ptr<JsJob> draftJob(const Napi::CallbackInfo& info) {
  return std::make_unique<DraftJob>(
      number(info[0]), static_cast<DraftJob::What>(number(info[1])), static_cast<Kind>(number(info[2])),
      bytesOfArray(info[3]),
      Drafted{.ledger = shared<Ledger>(info[4]), .slices = shared<Slices>(info[5]), .draft = {}, .plan = {}},
      number(info[6]));
}

std::unique_ptr<JsJob> applyJob(const Napi::CallbackInfo& info) {
  return std::make_unique<ApplyJob>(number(info[0]), shared<Drafted>(info[1]), spanOf<double>(info[2]));
}

}  // namespace xfrmesh
