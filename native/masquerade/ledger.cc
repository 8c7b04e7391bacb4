#include "masquerade/ledger.h"

namespace xfrmesh {

void Ledger::addRule(const Key& owner, double handle) {
  rows_.add({.kind = Kind::kRule, .owner = owner, .address = {}, .subnet = {}, .comment = nullptr, .handle = handle});
}

void Ledger::addElement(const Row& mapping) {
  const std::uint32_t row = rows_.add(mapping);
  if (comments_.size() <= row) comments_.resize(row + 1);
  comments_[row] = *mapping.comment;
  elements_[mapping.subnet]++;
}

void Ledger::remove(std::uint32_t row) {
  const Row& gone = rows_[row];
  if (gone.kind == Kind::kElement && --elements_[gone.subnet] == 0) elements_.erase(gone.subnet);
  rows_.remove(row);
}

std::uint32_t Ledger::elementsOn(const Subnet& subnet) const {
  const auto found = elements_.find(subnet);
  return found == elements_.end() ? 0 : found->second;
}

std::uint32_t Ledger::elementsOf(std::uint8_t family) const {
  std::uint32_t all = 0;
  for (const auto& [subnet, count] : elements_)
    if (subnet.family == family) all += count;
  return all;
}

}  // namespace xfrmesh
