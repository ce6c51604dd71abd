"""The fields of a graph's document, as torch defines them (``torch/_export/serde/schema.py``, major version 8).

They stand here so that every version of torch reads the same documents: its own reader takes none that is newer than itself.
A type is a name of this file or ``str``, ``int``, ``float``, ``bool``; ``[T]`` is a list, ``{T}`` a table, and ``?`` may be
missing. Lists and tables that are missing are empty.
"""

from __future__ import annotations

import torch

MAJOR_VERSION = 8

RECORDS: dict[str, dict[str, str]] = {
    "Device": {"type": "str", "index": "int?"},
    "SymExpr": {"expr_str": "str", "hint": "SymExprHint?"},
    "TensorMeta": {
        "dtype": "ScalarType", "sizes": "[SymInt]", "requires_grad": "bool", "device": "Device",
        "strides": "[SymInt]", "storage_offset": "SymInt", "layout": "Layout",
    },
    "TensorArgument": {"name": "str"},
    "TokenArgument": {"name": "str"},
    "GraphArgument": {"name": "str", "graph": "Graph"},
    "CustomObjArgument": {"name": "str", "class_fqn": "str"},
    "ComplexValue": {"real": "float", "imag": "float"},
    "NamedArgument": {"name": "str", "arg": "Argument", "kind": "ArgumentKind?"},
    "Node": {
        "target": "str", "inputs": "[NamedArgument]", "outputs": "[Argument]", "name": "str?",
        "is_hop_single_tensor_return": "bool?",
    },
    "Graph": {
        "inputs": "[Argument]", "outputs": "[Argument]", "nodes": "[Node]", "tensor_values": "{TensorMeta}",
        "sym_int_values": "{SymInt}", "sym_bool_values": "{SymBool}", "sym_float_values": "{SymFloat}",
        "is_single_tensor_return": "bool?", "custom_obj_values": "{CustomObjArgument}",
    },
    "UserInputSpec": {"arg": "Argument"},
    "InputToConstantInputSpec": {"name": "str", "value": "ConstantValue"},
    "InputToParameterSpec": {"arg": "TensorArgument", "parameter_name": "str"},
    "InputToBufferSpec": {"arg": "TensorArgument", "buffer_name": "str", "persistent": "bool?"},
    "InputToTensorConstantSpec": {"arg": "TensorArgument", "tensor_constant_name": "str"},
    "InputToCustomObjSpec": {"arg": "CustomObjArgument", "custom_obj_name": "str"},
    "InputTokenSpec": {"arg": "TokenArgument"},
    "UserOutputSpec": {"arg": "Argument"},
    "LossOutputSpec": {"arg": "TensorArgument"},
    "BufferMutationSpec": {"arg": "TensorArgument", "buffer_name": "str"},
    "ParameterMutationSpec": {"arg": "TensorArgument", "parameter_name": "str"},
    "GradientToParameterSpec": {"arg": "TensorArgument", "parameter_name": "str"},
    "GradientToUserInputSpec": {"arg": "TensorArgument", "user_input_name": "str"},
    "UserInputMutationSpec": {"arg": "TensorArgument", "user_input_name": "str"},
    "OutputTokenSpec": {"arg": "TokenArgument"},
    "GraphSignature": {"input_specs": "[InputSpec]", "output_specs": "[OutputSpec]"},
    "RangeConstraint": {"min_val": "int?", "max_val": "int?"},
    "ModuleCallSignature": {
        "inputs": "[Argument]", "outputs": "[Argument]", "in_spec": "str", "out_spec": "str",
        "forward_arg_names": "[str]?",
    },
    "ModuleCallEntry": {"fqn": "str", "signature": "ModuleCallSignature?"},
    "GraphModule": {"graph": "Graph", "signature": "GraphSignature", "module_call_graph": "[ModuleCallEntry]"},
    "SchemaVersion": {"major": "int", "minor": "int"},
    "ExportedProgram": {
        "graph_module": "GraphModule", "opset_version": "{int}", "range_constraints": "{RangeConstraint}",
        "schema_version": "SchemaVersion", "verifiers": "[str]", "torch_version": "str?",
    },
}  # fmt: skip

UNIONS: dict[str, dict[str, str]] = {
    "SymExprHint": {"as_int": "int", "as_bool": "bool", "as_float": "float"},
    "SymInt": {"as_expr": "SymExpr", "as_int": "int"},
    "SymFloat": {"as_expr": "SymExpr", "as_float": "float"},
    "SymBool": {"as_expr": "SymExpr", "as_bool": "bool"},
    "SymIntArgument": {"as_name": "str", "as_int": "int"},
    "SymFloatArgument": {"as_name": "str", "as_float": "float"},
    "SymBoolArgument": {"as_name": "str", "as_bool": "bool"},
    "OptionalTensorArgument": {"as_tensor": "TensorArgument", "as_none": "bool"},
    "Argument": {
        "as_none": "bool", "as_tensor": "TensorArgument", "as_tensors": "[TensorArgument]", "as_int": "int",
        "as_ints": "[int]", "as_float": "float", "as_floats": "[float]", "as_string": "str", "as_strings": "[str]",
        "as_sym_int": "SymIntArgument", "as_sym_ints": "[SymIntArgument]", "as_scalar_type": "ScalarType",
        "as_memory_format": "MemoryFormat", "as_layout": "Layout", "as_device": "Device", "as_bool": "bool",
        "as_bools": "[bool]", "as_sym_bool": "SymBoolArgument", "as_sym_bools": "[SymBoolArgument]",
        "as_graph": "GraphArgument", "as_optional_tensors": "[OptionalTensorArgument]",
        "as_custom_obj": "CustomObjArgument", "as_operator": "str", "as_sym_float": "SymFloatArgument",
        "as_sym_floats": "[SymFloatArgument]", "as_optional_tensor": "OptionalTensorArgument",
        "as_complex": "ComplexValue", "as_nested_tensors": "[[TensorArgument]]", "as_int_lists": "[[int]]",
        "as_string_to_argument": "{Argument}", "as_float_lists": "[[float]]",
    },
    "ConstantValue": {"as_none": "bool", "as_int": "int", "as_float": "float", "as_string": "str", "as_bool": "bool"},
    "InputSpec": {
        "user_input": "UserInputSpec", "parameter": "InputToParameterSpec", "buffer": "InputToBufferSpec",
        "tensor_constant": "InputToTensorConstantSpec", "custom_obj": "InputToCustomObjSpec",
        "token": "InputTokenSpec", "constant_input": "InputToConstantInputSpec",
    },
    "OutputSpec": {
        "user_output": "UserOutputSpec", "loss_output": "LossOutputSpec", "buffer_mutation": "BufferMutationSpec",
        "gradient_to_parameter": "GradientToParameterSpec", "gradient_to_user_input": "GradientToUserInputSpec",
        "user_input_mutation": "UserInputMutationSpec", "token": "OutputTokenSpec",
        "parameter_mutation": "ParameterMutationSpec",
    },
}  # fmt: skip

LEFT_OUT = {
    "Node": {"metadata"},
    "GraphModule": {"metadata", "treespec_namedtuple_fields"},
    "ExportedProgram": {"guards_code"},
}
"""What is there for people and debuggers (stack traces, guards as Python): nothing of it is read."""

DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16",
    29: "float8_e4m3fn", 30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz", 33: "float8_e8m0fnu",
    34: "uint32", 35: "uint64",
}  # fmt: skip
STRIDED = 7
LAYOUTS = {STRIDED: torch.strided}
"""The indices of sparse tensors can be changed in place, and are not checked when they are used."""
MEMORY_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d,
                  4: torch.preserve_format}  # fmt: skip
ENUMS = {
    "ScalarType": {0, *DTYPES},
    "Layout": {0, *LAYOUTS},
    "MemoryFormat": {0, *MEMORY_FORMATS},
    "ArgumentKind": {0, 1, 2},
}
