#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <set>
#include <tuple>
#include <vector>

#include "masquerade/draft.h"
#include "test/check.h"

namespace xfrmesh::test {
namespace {

Key keyOf(unsigned first, unsigned last) {
  Key key{};
  key.front() = static_cast<std::byte>(first);
  key.back() = static_cast<std::byte>(last);
  return key;
}

// Owners 1 to 3 of networks 1 and 2.
Key ownerOf(unsigned network, unsigned container) { return keyOf(network, container); }

// One of few addresses, on one of two subnets.
Mapping mappingOf(unsigned address, std::uint8_t prefix) {
  const std::uint8_t family = address % 2 == 0 ? AF_INET : AF_INET6;
  Key key = keyOf(0, address);
  if (family == AF_INET) key[10] = key[11] = std::byte{0xff};
  return {.address = key, .subnet = subnetOf(key, family, prefix)};
}

// A comment that says whose it is.
CommentSlot commentOf(const Key& owner) {
  CommentSlot slot;
  slot.length = 2;
  slot.text[0] = static_cast<char>(16 * std::to_integer<int>(owner.front()) + std::to_integer<int>(owner.back()));
  return slot;
}

Attachments attachmentsOf(const std::vector<std::pair<Key, std::vector<Mapping>>>& all) {
  Attachments made;
  for (const auto& [owner, mappings] : all) {
    made.owners.push_back(owner);
    made.comments.push_back(commentOf(owner));
    made.mappings.insert(made.mappings.end(), mappings.begin(), mappings.end());
    made.ends.push_back(static_cast<std::uint32_t>(made.mappings.size()));
  }
  return made;
}

// An owner by its comment, an address as packets have it, and a prefix.
using Held = std::tuple<char, std::vector<std::byte>, int>;

// What a table holds, without a ledger's own bookkeeping: as the kernel would take plans.
class Table {
 public:
  std::vector<double> commit(const Plan& plan) {
    for (const double handle : plan.deleteRules) CHECK_EQ(rules_.erase(handle), 1U);
    erase(plan.delete4, 4);
    erase(plan.delete6, 16);
    std::size_t key = 0;
    std::size_t comment = 0;
    const auto next = [&](const Subnet& subnet) {
      const auto from = plan.keys.begin() + static_cast<std::ptrdiff_t>(key);
      key += subnet.addressBytes();
      const std::vector<std::byte> address(from, plan.keys.begin() + static_cast<std::ptrdiff_t>(key));
      return Held{plan.comments[comment++]->text[0], address, subnet.prefix};
    };
    std::set<std::tuple<int, int, Key>> subnets;
    for (const auto& [subnet, count] : plan.elements) {
      CHECK(subnets.emplace(subnet.family, subnet.prefix, subnet.first).second);
      for (std::uint32_t i = 0; i < count; i++) {
        const Held held = next(subnet);
        CHECK(elements_.emplace(std::get<1>(held), std::pair(held, subnet)).second);
      }
    }
    std::vector<double> handles;
    for (const auto& [subnet, count] : plan.rules) {
      for (std::uint32_t i = 0; i < count; i++) {
        rules_.emplace(++handle_, next(subnet));
        handles.push_back(handle_);
      }
    }
    CHECK(key == plan.keys.size() && comment == plan.comments.size());
    for (const Subnet& subnet : plan.oldSubnets) CHECK_EQ(elementsOn(subnet), 0U);
    return handles;
  }

  [[nodiscard]] std::multiset<Held> held() const {
    std::multiset<Held> all;
    for (const auto& [handle, one] : rules_) all.insert(one);
    for (const auto& [address, one] : elements_) all.insert(one.first);
    return all;
  }
  [[nodiscard]] std::size_t elements() const { return elements_.size(); }
  [[nodiscard]] std::size_t elementsOn(const Subnet& subnet) const {
    return static_cast<std::size_t>(
        std::ranges::count_if(elements_, [&](const auto& one) { return one.second.second == subnet; }));
  }
  [[nodiscard]] const auto& all() const { return elements_; }

 private:
  void erase(const std::vector<std::byte>& keys, std::ptrdiff_t bytes) {
    for (auto at = keys.begin(); at != keys.end(); at += bytes)
      CHECK_EQ(elements_.erase(std::vector<std::byte>(at, at + bytes)), 1U);
  }

  std::map<double, Held> rules_;
  std::map<std::vector<std::byte>, std::pair<Held, Subnet>> elements_;
  double handle_ = 0;
};

}  // namespace

TEST(drafts_come_to_what_the_calls_mean) {
  // The same numbers each time (xorshift32).
  std::uint32_t random = 7;
  const auto below = [&](unsigned bound) {
    random ^= random << 13;
    random ^= random >> 17;
    random ^= random << 5;
    return random % bound;
  };
  for (int run = 0; run < 300; run++) {
    Ledger ledger;
    Table table;
    std::map<Key, std::vector<Mapping>> model;
    for (int step = 0; step < 15; step++) {
      std::vector<std::pair<Key, std::vector<Mapping>>> given;
      for (unsigned i = below(4); i > 0; i--) {
        std::vector<Mapping> mappings;
        for (unsigned address = 0; address < 6; address++)
          if (below(3) == 0) mappings.push_back(mappingOf(address, below(2) == 0 ? 24 : 16));
        given.emplace_back(ownerOf(1 + below(2), 1 + below(3)), mappings);
      }
      const Attachments attachments = attachmentsOf(given);
      Draft draft(ledger, below(3) == 0 ? Kind::kRule : Kind::kElement);
      const unsigned what = below(4);
      if (what < 2) {
        draft.add(attachments);
        for (const auto& [owner, mappings] : given) model[owner] = mappings;
      } else if (what == 2) {
        for (const auto& [owner, mappings] : given) {
          draft.remove(owner);
          model.erase(owner);
        }
      } else {
        const Key network = ownerOf(1 + below(2), 0);
        draft.collect(Bytes(network).first(8), {&attachments, 1});
        std::erase_if(model, [&](const auto& one) {
          const bool stays = std::ranges::any_of(given, [&](const auto& valid) { return valid.first == one.first; });
          return one.first.front() == network.front() && !stays;
        });
      }
      const Plan plan = draft.plan();
      const auto before = table.all();
      draft.apply(ledger, table.commit(plan));

      std::multiset<Held> expected;
      for (const auto& [owner, mappings] : model) {
        for (const auto& [address, subnet] : mappings) {
          const auto bytes = static_cast<std::ptrdiff_t>(subnet.addressBytes());
          expected.emplace(commentOf(owner).text[0], std::vector<std::byte>(address.end() - bytes, address.end()),
                           subnet.prefix);
        }
      }
      CHECK(table.held() == expected);
      // Subnets go with their last element, all of them, and the ledger has it right.
      CHECK_EQ(ledger.elementsOf(AF_INET) + ledger.elementsOf(AF_INET6), table.elements());
      std::vector<Subnet> gone;
      for (const auto& [address, one] : before) {
        CHECK_EQ(ledger.elementsOn(one.second), table.elementsOn(one.second));
        if (table.elementsOn(one.second) == 0 && std::ranges::find(gone, one.second) == gone.end())
          gone.push_back(one.second);
      }
      CHECK(std::ranges::is_permutation(gone, plan.oldSubnets));
      for (const auto& [owner, mappings] : model) {
        std::size_t found = 0;
        for (auto row = ledger.rows().of(owner); row != kNoRow; row = ledger.rows()[row].next) found++;
        CHECK_EQ(found, mappings.size());
      }
    }
  }
}

TEST(the_newest_has_the_element_and_who_had_it_a_rule) {
  Ledger ledger;
  const Key a = ownerOf(1, 1);
  const Key b = ownerOf(1, 2);
  const Attachments first = attachmentsOf({{a, {mappingOf(0, 24)}}});
  const Attachments second = attachmentsOf({{b, {mappingOf(0, 16)}}});
  Draft draft(ledger, Kind::kElement);
  draft.add(first);
  draft.add(second);
  const Plan together = draft.plan();
  CHECK(together.elements.size() == 1 && together.rules.size() == 1);
  CHECK(together.comments[0] == second.comments.data() && together.comments[1] == first.comments.data());
  draft.apply(ledger, std::array{7.0});
  CHECK_EQ(ledger.rows()[ledger.rows().of(a)].handle, 7.0);
  CHECK_EQ(ledger.rows().at(mappingOf(0, 16).address), ledger.rows().of(b));

  // Added again it is the newest; what was in the table is taken by its own comment.
  Draft again(ledger, Kind::kElement);
  again.add(first);
  const Plan plan = again.plan();
  CHECK(plan.deleteRules == std::vector{7.0} && plan.delete4.size() == 4 && plan.left4 == 0);
  CHECK(plan.elements[0].subnet.prefix == 24 && plan.rules[0].subnet.prefix == 16);
  CHECK_EQ(plan.comments[1]->text[0], commentOf(b).text[0]);
}

TEST(an_element_that_is_nobodys_stays_until_its_address_is_wanted) {
  Ledger ledger;
  const auto [address, subnet] = mappingOf(0, 24);
  const CommentSlot comment = commentOf(ownerOf(3, 3));
  ledger.addElement({.kind = Kind::kElement, .owner = {}, .address = address, .subnet = subnet, .comment = &comment});
  ledger.addRule(Key{}, 3);
  Draft collecting(ledger, Kind::kElement);
  collecting.collect(Bytes(Key{}).first(8), {});
  CHECK(collecting.plan().delete4.empty() && collecting.plan().deleteRules.empty());
  const Attachments wanted = attachmentsOf({{ownerOf(1, 1), {mappingOf(0, 24)}}});
  Draft draft(ledger, Kind::kElement);
  draft.add(wanted);
  const Plan plan = draft.plan();
  CHECK(plan.delete4.size() == 4 && plan.rules.size() == 1 && plan.oldSubnets.empty());
  CHECK_EQ(plan.comments[1]->text[0], comment.text[0]);
}

TEST(holdings_find_each_of_thousands_and_take_no_more_room) {
  Holdings holdings;
  const auto rowOf = [](std::uint32_t i) {
    Key key{};
    std::memcpy(&key[12], &i, sizeof i);
    return Row{.kind = Kind::kElement, .owner = key, .address = key, .subnet = {}, .comment = nullptr};
  };
  std::vector<std::uint32_t> rows(5000);
  for (std::uint32_t i = 1; i < 5000; i++) rows[i] = holdings.add(rowOf(i));
  for (std::uint32_t i = 1; i < 5000; i += 2) holdings.remove(rows[i]);
  for (std::uint32_t i = 1; i < 5000; i++) {
    CHECK_EQ(holdings.at(rowOf(i).address), i % 2 == 0 ? rows[i] : kNoRow);
    CHECK_EQ(holdings.of(rowOf(i).owner), i % 2 == 0 ? rows[i] : kNoRow);
  }
  const std::uint32_t end = holdings.end();
  for (std::uint32_t i = 10'000; i < 50'000; i++) holdings.remove(holdings.add(rowOf(i)));
  CHECK_EQ(holdings.end(), end);
}

}  // namespace xfrmesh::test
