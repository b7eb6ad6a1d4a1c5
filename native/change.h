// Edits of a row of logits.
#pragma once

#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

namespace outrider {

using Ids = std::vector<int64_t>;

// One edit of a row of logits. Cheap to copy: copies share what they are made of, which never changes.
class Change {
 public:
  struct Bar {  // these cannot be chosen
    Ids ids;
  };
  struct Allow {  // no others can be chosen
    std::vector<uint8_t> mask;  // [vocab]
  };
  struct Add {  // an id that stands twice has both values added
    Ids ids;
    std::vector<float> values;
  };
  struct Penalise {  // positive logits are divided by the factor, others multiplied (Keskar et al., 2019)
    Ids ids;
    float factor;
  };

  // Throws std::invalid_argument for what fits no row.
  explicit Change(Bar bar);
  explicit Change(Allow allow);
  explicit Change(Add add);
  explicit Change(Penalise penalise);

  // Throws std::invalid_argument where a row of `vocab` logits does not have what is edited.
  void check(int vocab) const;
  // logits: of a row that was checked.
  void apply(float* logits) const;

 private:
  using Kind = std::variant<Bar, Allow, Add, Penalise>;
  std::shared_ptr<const Kind> kind_;
  int64_t last_ = -1;  // the largest id
};

using Changes = std::vector<Change>;

}  // namespace outrider
