#include "masquerade/draft.h"

#include <algorithm>
#include <unordered_map>

namespace xfrmesh {
namespace {

// Appends an address as packets have it.
void put(std::vector<std::byte>& keys, const Row& row) {
  const auto bytes = static_cast<std::ptrdiff_t>(row.subnet.addressBytes());
  keys.insert(keys.end(), row.address.end() - bytes, row.address.end());
}

// Sorts mappings by their subnets, in the order in which those are met first.
class BySubnet {
 public:
  void add(const Row& row) {
    if (latest_ == groups_.size() || groups_[latest_].front()->subnet != row.subnet) {
      const auto [found, isNew] = numbers_.try_emplace(row.subnet, groups_.size());
      latest_ = found->second;
      if (isNew) groups_.emplace_back();
    }
    groups_[latest_].push_back(&row);
  }
  [[nodiscard]] const std::vector<std::vector<const Row*>>& groups() const { return groups_; }
  [[nodiscard]] bool has(const Subnet& subnet) const { return numbers_.contains(subnet); }

 private:
  std::vector<std::vector<const Row*>> groups_;
  std::unordered_map<Subnet, std::size_t, SubnetHash> numbers_;
  std::size_t latest_ = 0;  // mostly it is the one that the mapping before is on
};

}  // namespace

void Draft::markGone(std::uint32_t row) {
  if (isGone_[row] != 0) return;
  isGone_[row] = 1;
  gone_.push_back(row);
}

void Draft::remove(const Key& owner) {
  const Holdings& there = ledger_.rows();
  for (std::uint32_t row = there.of(owner); row != kNoRow; row = there[row].next) markGone(row);
  for (std::uint32_t row = made_.of(owner); row != kNoRow; row = made_.of(owner)) made_.remove(row);
}

void Draft::add(const Attachments& attachments) {
  std::uint32_t next = 0;
  for (std::size_t i = 0; i < attachments.owners.size(); i++) {
    remove(attachments.owners[i]);
    for (; next < attachments.ends[i]; next++) {
      const auto& [address, subnet] = attachments.mappings[next];
      if (kind_ == Kind::kElement) clear(address);
      made_.add({.kind = kind_,
                 .owner = attachments.owners[i],
                 .address = address,
                 .subnet = subnet,
                 .comment = &attachments.comments[i]});
    }
  }
}

void Draft::collect(Bytes network, std::span<const Attachments> valid) {
  const Holdings& there = ledger_.rows();
  std::vector<std::uint8_t> stays(there.end());
  for (const Attachments& attachments : valid) {
    for (const Key& owner : attachments.owners) {
      const std::uint32_t first = there.of(owner);
      if (first != kNoRow) stays[first] = 1;
    }
  }
  for (std::uint32_t row = 0; row < there.end(); row++) {
    const Key& owner = there[row].owner;
    if (there[row].kind == Kind::kNone || !std::equal(network.begin(), network.end(), owner.begin())) continue;
    // An owner's rows all at once, as they are linked: so are they taken away one by one without a search.
    if (there.of(owner) != row || stays[row] != 0) continue;
    for (std::uint32_t each = row; each != kNoRow; each = there[each].next) markGone(each);
  }
}

void Draft::clear(const Key& address) {
  const std::uint32_t other = made_.at(address);
  if (other != kNoRow) {
    made_.demote(other);
    return;
  }
  const std::uint32_t held = ledger_.rows().at(address);
  if (held == kNoRow || isGone_[held] != 0) return;
  markGone(held);
  Row again = ledger_.rows()[held];
  again.kind = Kind::kRule;
  again.comment = &ledger_.commentOf(held);
  made_.add(again);
}

Plan Draft::plan() const {
  Plan plan;
  plan.left4 = ledger_.elementsOf(AF_INET);
  plan.left6 = ledger_.elementsOf(AF_INET6);
  BySubnet elements;
  std::vector<const Row*> rules;
  for (std::uint32_t i = 0; i < made_.end(); i++) {
    const Row& row = made_[i];
    if (row.kind == Kind::kElement) elements.add(row);
    if (row.kind == Kind::kRule) rules.push_back(&row);
  }
  const auto make = [&](const Row& row) {
    put(plan.keys, row);
    plan.comments.push_back(row.comment);
  };
  plan.comments.reserve(made_.end());
  plan.keys.reserve(made_.end() * sizeof(Key));
  for (const auto& group : elements.groups()) {
    plan.elements.push_back({.subnet = group[0]->subnet, .count = static_cast<std::uint32_t>(group.size())});
    for (const Row* row : group) make(*row);
  }
  for (const Row* row : rules) {
    if (plan.rules.empty() || plan.rules.back().subnet != row->subnet)
      plan.rules.push_back({.subnet = row->subnet, .count = 0});
    plan.rules.back().count++;
    make(*row);
  }

  std::unordered_map<Subnet, std::uint32_t, SubnetHash> fewer;
  for (const std::uint32_t number : gone_) {
    const Row& row = ledger_.rows()[number];
    if (row.kind == Kind::kRule) {
      plan.deleteRules.push_back(row.handle);
      continue;
    }
    const bool is4 = row.subnet.family == AF_INET;
    put(is4 ? plan.delete4 : plan.delete6, row);
    (is4 ? plan.left4 : plan.left6)--;
    if (++fewer[row.subnet] == ledger_.elementsOn(row.subnet) && !elements.has(row.subnet))
      plan.oldSubnets.push_back(row.subnet);
  }
  return plan;
}

void Draft::apply(Ledger& ledger, std::span<const double> handles) const {
  for (const std::uint32_t row : gone_) ledger.remove(row);
  ledger.reserve(made_.end());
  std::size_t next = 0;
  for (std::uint32_t i = 0; i < made_.end(); i++) {
    const Row& row = made_[i];
    if (row.kind == Kind::kElement) ledger.addElement(row);
    if (row.kind == Kind::kRule) ledger.addRule(row.owner, handles[next++]);
  }
}

}  // namespace xfrmesh
