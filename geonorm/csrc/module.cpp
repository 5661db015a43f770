// The Python module geonorm._C: importing it gives the operators of namespace geonorm, which Python
// defines, their CPU kernels; autograd.cpp adds the derivative rules.
#include <Python.h>
#include <torch/library.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "axis_norm.h"
#include "segment_norm.h"
#include "sparse_conv.h"

namespace geonorm {
void add_derivatives(torch::Library& library);  // autograd.cpp
}

namespace {

// Without a name, says which instruction set is in use; with one, uses it.
PyObject* instruction_set(PyObject*, PyObject* args) {
  using geonorm::Machine;
  constexpr const char* names[] = {"any", "avx2", "avx512"};
  const char* name = nullptr;
  if (!PyArg_ParseTuple(args, "|s", &name)) return nullptr;
  const int best = static_cast<int>(geonorm::best_machine());
  if (name != nullptr) {
    const auto found = std::find(names, names + best + 1, std::string_view(name));
    if (found == names + best + 1) {
      return PyErr_Format(PyExc_ValueError, "this machine has no %s, its best is %s", name,
                          names[best]);
    }
    geonorm::machine() = static_cast<Machine>(found - names);
  }
  return PyUnicode_FromString(names[static_cast<int>(geonorm::machine())]);
}

PyMethodDef methods[] = {
    {"instruction_set", instruction_set, METH_VARARGS, "The instruction set, or to use another."},
    {nullptr, nullptr, 0, nullptr}};

void add_kernels(torch::Library& library) {
  library.impl("segment_norm", geonorm::segment_norm);
  library.impl("segment_norm_backward", geonorm::segment_norm_backward);
  library.impl("segment_stats", geonorm::segment_stats);
  library.impl("axis_norm", geonorm::axis_norm);
  library.impl("axis_norm_backward", geonorm::axis_norm_backward);
  library.impl("sparse_conv", geonorm::sparse_conv);
  library.impl("sparse_conv_weight", geonorm::sparse_conv_weight);
}

}  // namespace

// Here, not in TORCH_LIBRARY_IMPL, where operators of other schemas, those of a geonorm installed
// before this one, would end the process.
PyMODINIT_FUNC PyInit__C() {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "geonorm._C", nullptr, -1, methods};
  static std::vector<torch::Library> registered;  // until the process ends
  const auto add = [&](c10::DispatchKey key, void (*add_to)(torch::Library&)) {
    torch::Library library(torch::Library::IMPL, "geonorm", key, __FILE__, __LINE__);
    add_to(library);
    registered.push_back(std::move(library));
  };
  try {
    add(c10::DispatchKey::CPU, add_kernels);
    add(c10::DispatchKey::Autograd, geonorm::add_derivatives);
  } catch (const c10::Error& error) {
    registered.clear();
    PyErr_SetString(PyExc_ImportError, error.what_without_backtrace());
    return nullptr;
  }
  return PyModule_Create(&definition);
}
